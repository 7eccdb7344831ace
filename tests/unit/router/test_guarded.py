"""Guarded promotion: its steps, its guardrails, and the guard."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from serve_app.config import AlertName, AssignmentConfig
from serve_app.errors import EvidenceRefused, MonitorUnavailable, ParityError, ReleaseRefused, StageUnavailable
from serve_app.guard import Guard, Senses, alarms
from serve_app.router.changes import promoted, split
from serve_app.router.guarded import FEW, advanced, begun, next_step, tripped
from serve_app.router.plan import Guardrails, Plan
from serve_app.router.releases import Author, Entry, Ledger, Release, Step
from serve_app.types import VariantName, Vitals
from tests.unit.ledgers import Memory

OLD, NEW = (f"sha256:{digit * 64}" for digit in "ab")
BEGAN = datetime(2026, 3, 1, tzinfo=UTC)
PLAN = Plan(pins=("IBM",), shares=(0.1, 0.5), step_s=60)
WELL = Vitals(answered=200, p95_ms=3.0)
PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


@dataclass
class World:
    """What the guard sees, as the tests wish; a ledger in memory."""

    ledger: Ledger
    now: datetime = BEGAN
    vitals: dict[VariantName, Vitals] = field(default_factory=lambda: {PRODUCTION: WELL, CANDIDATE: WELL})
    errors: tuple[int, int] | Exception = (0, 0)
    alerts: list[dict[str, Any]] = field(default_factory=list)
    parity: Exception | None = None
    advice: str | Exception = "not_yet"
    doubts: list[str] = field(default_factory=list)
    seen: Entry | None = None
    """What this router still believes to be in force."""

    def guard(self) -> Guard:
        async def told(answer: Any) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        def telling(name: str) -> Callable[..., Awaitable[Any]]:
            return lambda *_: told(getattr(self, name))

        def evidence(_: Entry) -> Awaitable[Any]:
            if isinstance(self.advice, Exception):
                return told(self.advice)
            return told({"verdict": {"advice": self.advice, "because": "it is worse"}, "doubts": self.doubts})

        async def monitor() -> dict[str, Any]:
            if isinstance(self.errors, Exception):
                raise self.errors
            failed, asked = self.errors
            counts = {"production": {"requests": asked - failed}}
            return {"variants": counts, "errors": {"internal": failed}, "alerts": self.alerts}

        senses = Senses(
            in_force=lambda: self.seen or self.newest,
            vitals=lambda _, name: told(self.vitals[name]),
            monitor=monitor,
            parity=telling("parity"),
            version=lambda _: "v1.1",
            evidence=evidence,
        )
        return Guard(self.ledger, senses, [AlertName.MEMORY], lambda: told(None), lambda: self.now)

    @property
    def newest(self) -> Entry:
        return self.ledger.entries()[-1]

    def look(self, guard: Guard, after_s: float = 0) -> Release:
        self.now += timedelta(seconds=after_s)
        asyncio.run(guard.look())
        return self.newest.release


@pytest.fixture
def world() -> World:
    ledger = Ledger(Memory())
    ledger.seed(Release(production=OLD, candidate=NEW), author(BEGAN))
    ledger.change(Step.GUARD, begun(PLAN), author(BEGAN), by_plan=True)
    return World(ledger)


def author(at: datetime) -> Author:
    return Author("ada", "because", at)


def test_the_steps_are_shadow_pins_shares_production_and_done(world: World) -> None:
    guard, seen = world.guard(), [world.newest.release]
    while seen[-1].plan is not None:
        assert world.look(guard, 59) == seen[-1]  # too early
        seen.append(world.look(guard, 1))
    asked = [(one.production, one.assignment.candidate_share, dict(one.assignment.pins), one.shadow) for one in seen]
    pins = {"IBM": CANDIDATE}
    assert asked == [
        (OLD, 0, {}, True),
        (OLD, 0, pins, True),
        (OLD, 0.1, pins, True),
        (OLD, 0.5, pins, True),
        (NEW, 0, {}, False),
        (NEW, 0, {}, False),
    ]
    steps = [entry.step for entry in world.ledger.entries()]
    assert steps == ["seed", "guard", "advance", "advance", "advance", "promote", "advance"]
    assert {entry.who for entry in world.ledger.entries()[2:]} == {"guard"}
    assert "10%, step 3 of 5: no guardrail tripped" in [entry.why for entry in world.ledger.entries()]
    assert world.look(guard, 1_000) == seen[-1]  # nothing left to do


def test_a_step_with_too_few_answers_is_not_over(world: World) -> None:
    world.vitals[CANDIDATE] = replace(WELL, answered=99)
    before = world.newest
    world.look(world.guard(), 1_000)
    assert world.newest == before


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"vitals": {CANDIDATE: Vitals(90, 10, 3.0), PRODUCTION: WELL}}, "10 of 100 abstained, more than 2.0%"),
        (
            {"vitals": {CANDIDATE: Vitals(100, 0, 6.1), PRODUCTION: WELL}},
            "95 % take up to 6.1 ms, more than 2 times the 3.0 ms of production",
        ),
        ({"parity": ParityError("golden case 3: logit is 1.0")}, "parity: golden case 3: logit is 1.0"),
    ],
    ids=["abstentions", "latency", "parity"],
)
def test_whatever_trips_goes_back_at_once_from_every_step(
    world: World, steps: int, wrong: dict[str, Any], why: str
) -> None:
    guard = world.guard()
    for _ in range(steps):
        world.look(guard, 60)
    assert world.newest.release.plan is not None
    assert world.newest.release.plan.at == steps
    for name, value in wrong.items():
        setattr(world, name, value)
    after = world.look(guard)
    assert (world.newest.step, world.newest.who, world.newest.why) == ("rollback", "guard", why)
    assert after == Release(production=OLD, candidate=NEW)


def test_production_is_watched_for_one_more_step_and_the_promotion_undone(world: World) -> None:
    guard = world.guard()
    while world.newest.step != "promote":
        world.look(guard, 60)
    world.vitals = {PRODUCTION: Vitals(90, 10, 3.0), CANDIDATE: Vitals()}
    after = world.look(guard)
    assert (after.production, after.candidate, after.plan) == (OLD, NEW, None)


def test_errors_since_the_epoch_was_first_seen_trip(world: World) -> None:
    guard = world.guard()
    world.errors = (50, 1_000)
    world.look(guard)
    world.errors = (50 + FEW, 1_020)
    world.look(guard)
    assert world.newest.step == "guard"
    world.errors = MonitorUnavailable("away")
    world.look(guard)
    world.errors = (3, 40)  # a monitor that has started again
    world.look(guard)
    world.errors = (10, 140)
    world.look(guard)
    assert world.newest.why == "7 of 100 requests failed, more than 2.0%"


def test_a_candidate_that_is_proven_worse_goes_back_when_its_step_is_over(world: World) -> None:
    world.advice = "reject"
    assert world.look(world.guard(), 59).plan == PLAN
    assert world.look(world.guard(), 1).plan is None
    assert (world.newest.step, world.newest.why) == ("rollback", "it is worse")


def test_an_experiment_that_is_not_to_be_believed_goes_back(world: World) -> None:
    world.doubts = ["2 decisions are not of the variant that the ledger assigned"]
    world.look(world.guard(), 60)
    assert (world.newest.step, world.newest.why) == ("rollback", world.doubts[0])


def test_without_evidence_it_goes_on_unless_it_shall_wait_for_it(world: World) -> None:
    world.advice = EvidenceRefused("they do not predict the same outcome")
    for _ in range(5):
        world.look(world.guard(), 60)
    assert world.newest.release.production == NEW
    waiting = PLAN.model_copy(update={"wait_for_evidence": True})
    world.ledger.change(Step.ROLLBACK, lambda _: Release(production=OLD, candidate=NEW), author(world.now))
    world.ledger.change(Step.GUARD, begun(waiting), author(world.now), by_plan=True)
    for _ in range(10):
        world.look(world.guard(), 60)
    assert world.newest.release.assignment.candidate_share == 0.5
    guard = world.guard()
    world.look(guard)
    world.advice = "promote"
    assert world.look(guard, 59).production == OLD  # evidence is asked for once a minute
    assert world.look(guard, 1).production == NEW


@pytest.mark.parametrize(
    "error",
    [StageUnavailable("model-candidate does not answer"), TimeoutError(), RuntimeError("a defect")],
)
def test_a_stage_that_is_away_or_broken_is_no_matter_of_parity(world: World, error: Exception) -> None:
    world.parity = error
    assert world.look(world.guard()).plan == PLAN


def test_whatever_goes_wrong_the_guard_looks_again(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("serve_app.guard.LOOK_S", 0)
    guard, looked = world.guard(), asyncio.Event()
    errors: list[Exception] = [RuntimeError("a defect"), StageUnavailable("away")]

    async def look() -> None:
        if errors:
            raise errors.pop(0)
        looked.set()

    monkeypatch.setattr(guard, "look", look)

    async def watched() -> None:
        watching = asyncio.create_task(guard.watch_forever())
        await asyncio.wait_for(looked.wait(), 30)
        watching.cancel()

    asyncio.run(watched())
    assert caplog.text.count("the guard could not look") == 2


def test_it_goes_back_from_what_it_looked_at_and_from_nothing_newer(world: World) -> None:
    guard = world.guard()
    world.vitals[CANDIDATE] = Vitals(0, 100)
    looked_at = world.newest

    async def changed_meanwhile(_: VariantName) -> None:
        by_hand = begun(PLAN.model_copy(update={"step_s": 7}))
        world.ledger.change(Step.GUARD, by_hand, author(world.now), by_plan=True)

    guard._senses = replace(guard._senses, parity=changed_meanwhile)
    assert world.look(guard).plan == PLAN.model_copy(update={"step_s": 7})
    assert world.newest.epoch == looked_at.epoch + 1


def test_of_two_guards_that_see_the_same_one_moves_it_on(world: World) -> None:
    world.seen = world.newest
    for _ in range(2):
        world.look(world.guard(), 60)
    assert [entry.step for entry in world.ledger.entries()] == ["seed", "guard", "advance"]
    world.vitals[CANDIDATE] = Vitals(0, 100)
    world.look(world.guard())
    assert world.newest.step == "advance"  # what it saw is over: the trip was of another epoch


def alert(**changes: Any) -> dict[str, Any]:
    """The memory of the graph, full five seconds after the plan began."""
    given = {
        "alert": "memory",
        "subject": None,
        "model_version": None,
        "state": "firing",
        "message": "93% is in use",
    }
    return {**given, "since": BEGAN + timedelta(seconds=5), **changes}


def test_an_alert_rolls_back_what_is_under_way_and_nothing_else(world: World) -> None:
    guard = world.guard()
    of_the_one_before = alert(subject="candidate", model_version="v1.0")
    world.alerts = [alert(), alert(alert="error_rate"), alert(message="a node is full"), of_the_one_before]
    world.look(guard)
    assert (world.newest.step, world.newest.why) == ("rollback", "memory: 93% is in use; memory: a node is full")
    world.look(guard)
    assert len(world.ledger.entries()) == 3


def test_only_alerts_of_the_plan_that_began_under_it_end_it(world: World) -> None:
    entry = world.newest
    among = [
        alert(),
        alert(alert="error_rate", subject="candidate", model_version="v1.1"),
        alert(alert="error_rate", subject="candidate", model_version="v1.0"),
        alert(subject="production"),
        alert(state="pending"),
        alert(since=BEGAN - timedelta(seconds=1)),
        alert(alert="feature_drift"),
    ]
    may_end_it = (AlertName.MEMORY, AlertName.ERROR_RATE)
    assert alarms({"alerts": among}, may_end_it, entry, "v1.1") == [
        "memory: 93% is in use",
        "error_rate: 93% is in use",
    ]
    without = entry.model_copy(update={"release": entry.release.changed(plan=None)})
    assert alarms({"alerts": among}, may_end_it, without, "v1.1") == []


@pytest.mark.parametrize(
    "change",
    [split(0.5, None, None), promoted, lambda release: release.changed(shadow=False)],
    ids=["split", "promoted", "shadow"],
)
def test_any_change_by_hand_ends_it(world: World, change: Callable[[Release], Release]) -> None:
    assert world.ledger.change(Step.SPLIT, change, author(BEGAN)).release.plan is None


def test_nothing_to_promote_is_refused() -> None:
    with pytest.raises(ReleaseRefused, match="no candidate to promote"):
        begun(PLAN)(Release(production=OLD))
    with pytest.raises(ReleaseRefused, match="no guarded promotion is under way"):
        advanced(Release(production=OLD))


@pytest.mark.parametrize("shares", [(0.5, 0.1), (0.1, 0.1), (0.0, 0.1), ()])
def test_shares_grow(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="shares"):
        Plan(shares=shares)


def test_without_pins_there_is_no_step_for_them() -> None:
    plan = Plan(shares=(0.1,))
    assert plan.steps("x") == [AssignmentConfig(salt="x"), AssignmentConfig(salt="x", candidate_share=0.1)]
    assert [next_step(plan.model_copy(update={"at": at})) for at in range(3)] == ["advance", "promote", "advance"]


def test_a_few_failures_are_no_rate_and_production_alone_has_no_other_to_be_slower_than() -> None:
    rails = Guardrails()
    assert tripped(rails, Vitals(1, FEW, 3.0), WELL) is None
    assert tripped(rails, Vitals(100, 0, 50.0), None) is None
    assert tripped(rails, Vitals(99, 0, 50.0), WELL) is None
