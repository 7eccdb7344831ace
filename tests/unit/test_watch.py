"""The watch, over a real journal: what it tells, and what it still knows after it has died."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Engine, update

from serve_app.config import AlertName, AlertsConfig, AssignmentConfig, Rule
from serve_app.errors import JournalUnavailable, ServeAppError
from serve_app.guard import alarms
from serve_app.journal import Alarms, ReleaseLines, connect, matured
from serve_app.journal.outcomes import Outcomes
from serve_app.journal.record import pack
from serve_app.journal.schema import releases
from serve_app.journal.store import Decisions
from serve_app.model import load_bundle
from serve_app.monitor import Alert, Learnt
from serve_app.router.changes import replaced, split
from serve_app.router.guarded import begun
from serve_app.router.plan import Plan
from serve_app.router.releases import Author, Entry, Ledger, Release, Step
from serve_app.types import Decision, Matured, Row, VariantName
from serve_app.watch import Watch
from tests.unit.monitor.answers import decision, router, state, told

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FAST = AlertsConfig(resolve_after_s=0)
N = 10
"""Answers that the rule about latency looks at, here."""
SLOW = AlertsConfig(resolve_after_s=0, inference_latency=Rule(limit=100, window=N))
CANDIDATE = VariantName.CANDIDATE


class World:
    """A journal in a file, and what is told."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = connect(url)
        self.now = NOW
        self.events: list[Alert] = []
        self.shown: list[Mapping[str, Any]] = []
        self.away = False

    def connect(self) -> Any:
        if self.away:
            raise JournalUnavailable("away")
        return connect(self.url)

    def watch(self, config: AlertsConfig = FAST) -> Watch:
        return Watch(state(), config, self.connect, self.events.append, self.shown.append, lambda: self.now)

    def keep(self, made: list[Decision]) -> None:
        Decisions(self.engine).keep([pack(one, Row(1, features=np.ones((2, 3))), NOW) for one in made])

    @property
    def ledger(self) -> Ledger:
        return Ledger(ReleaseLines(self.engine))

    @property
    def author(self) -> Author:
        return Author("ada", "because", self.now)

    def release(self) -> None:
        """Begin a ledger, with a candidate that answers half of the symbols."""
        half = AssignmentConfig(candidate_share=0.5)
        self.ledger.seed(Release(production="v1.0", candidate="v1.1", assignment=half), self.author)

    def guarded(self, candidate: str) -> Entry:
        """Begin a guarded promotion, and let it come to where the candidate answers."""
        self.ledger.change(Step.CANDIDATE, replaced(candidate), self.author)
        plan = Plan(shares=(0.5,), at=1)
        return self.ledger.change(
            Step.GUARD,
            lambda release: begun(plan)(release).changed(assignment=AssignmentConfig(candidate_share=0.5), plan=plan),
            self.author,
            by_plan=True,
        )

    def look(self, watch: Watch) -> list[str]:
        """Look once, a second later; return what is told."""
        self.now += timedelta(seconds=1)
        self.events.clear()
        asyncio.run(watch.look())
        return [f"{event.alert} {event.state}" for event in self.events]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(f"sqlite:///{tmp_path / 'journal.db'}")


def failing(watch: Watch, by: Any, failed: int, well: int) -> None:
    watch.state.add(told([ServeAppError("x")] * failed + [decision() for _ in range(well)], by=by))


def test_what_goes_wrong_is_told_once_kept_and_shown(world: World) -> None:
    watch, by = world.watch(), router()
    failing(watch, by, 0, 95)
    failing(watch, by, 6, 0)
    assert world.look(watch) == ["error_rate firing"]
    assert world.look(watch) == []
    failing(watch, by, 0, 100)
    assert world.look(watch) == ["error_rate resolved"]
    assert [one["state"] for one in Alarms(world.engine).latest(10)] == ["firing", "resolved"]
    assert [one["state"] for one in watch.alerts()["events"]] == ["resolved", "firing"]
    assert watch.alerts()["alerts"] == []


def test_wrong_outcomes_are_told_and_right_ones_resolve_it(world: World) -> None:
    watch = world.watch()
    made = [decision(probability=0.9) for _ in range(200)]
    world.keep(made)
    watch.state.add(told(made))
    outcomes = Outcomes(world.engine)
    outcomes.report({one.decision_id: int(i >= 46) for i, one in enumerate(made[:100])}, NOW)
    assert world.look(watch) == ["rolling_accuracy firing"]
    assert watch.snapshot()["rolling_accuracy"] == {"production": 0.54}
    assert world.events[0].wants_retraining
    outcomes.report({one.decision_id: 1 for one in made[100:]}, NOW + timedelta(seconds=1))
    assert world.look(watch) == ["rolling_accuracy resolved"]


def test_a_watch_that_begins_again_counts_as_the_journal_and_does_not_tell_again(world: World) -> None:
    watch, by, made = world.watch(), router(), [decision() for _ in range(120)]
    world.keep(made)
    watch.state.add(told([], by=by))
    watch.state.add(told([*made, *[ServeAppError("x")] * 40], by=by))
    assert world.look(watch) == ["error_rate firing"]
    after = world.watch()
    after.state.add(told(made[-5:], by=router("b")))  # told before the journal was asked
    assert world.look(after) == []
    assert after.snapshot()["variants"]["production"]["requests"] == 120
    assert [alert["alert"] for alert in after.alerts()["alerts"]] == [AlertName.ERROR_RATE]
    assert len(after.alerts()["events"]) == 1


def test_while_the_database_is_away_alerts_are_told_and_kept_later(world: World) -> None:
    world.away = True
    watch, by = world.watch(), router()
    failing(watch, by, 0, 95)
    failing(watch, by, 6, 0)
    with pytest.raises(JournalUnavailable):
        world.look(watch)
    assert [event.alert for event in world.events] == ["error_rate"]
    assert Alarms(world.engine).latest(10) == []
    world.away = False
    assert world.look(watch) == []
    assert [one["alert"] for one in Alarms(world.engine).latest(10)] == ["error_rate"]
    assert [one["alert"] for one in watch.alerts()["events"]] == ["error_rate"]


def test_a_look_that_fails_does_not_end_the_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve_app.watch.LOOK_S", 0)
    watch = world.watch()
    monkeypatch.setattr(watch, "look", partial(_fail, world))

    async def run() -> None:
        task = asyncio.create_task(watch.watch_forever())
        await asyncio.wait_for(_shown(world, 3), 10)
        task.cancel()

    asyncio.run(run())
    assert world.shown[-1]["alerts"] == []


async def _fail(world: World) -> None:
    raise JournalUnavailable("away") if world.shown else RuntimeError("a defect")


async def _shown(world: World, n: int) -> None:
    while len(world.shown) < n:  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0)


def test_without_a_journal_it_watches_all_the_same() -> None:
    events: list[Alert] = []
    watch = Watch(state(), memory_limit(0.2), None, events.append, lambda _: None, lambda: NOW)
    watch.state.add(told([]))
    asyncio.run(watch.look())
    assert [(event.alert, event.value) for event in events] == [(AlertName.MEMORY, 0.25)]


def memory_limit(limit: float) -> AlertsConfig:
    return AlertsConfig.model_validate({"memory": {"limit": limit}})


def test_what_outcomes_are_worth_is_said_once_the_bundle_is_known(world: World) -> None:
    watch = world.watch()
    made = [decision(probability=0.9, timestamp=NOW + timedelta(days=i)) for i in range(100)]
    world.keep(made)
    watch.state.add(told(made))
    Outcomes(world.engine).report({one.decision_id: int(i % 3 > 0) for i, one in enumerate(made)}, NOW)
    world.look(watch)
    assert watch.snapshot()["outcomes"] == {"production": None}
    watch.state.learn("sha256:0", Learnt("v1.0", None, horizon_bars=5, signal_threshold=0.7))
    world.look(watch)
    said = watch.snapshot()["outcomes"]["production"]
    assert (said["n"], said["base_rate"], said["effective_n"]) == (100, 0.66, 21)


def test_outcomes_are_read_again_when_there_is_another_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, made, reads = world.watch(), [decision(probability=0.9) for _ in range(2)], []

    def read(engine: Engine) -> dict[VariantName, Matured]:
        reads.append(engine)
        return matured(engine)

    monkeypatch.setattr("serve_app.watch.matured", read)
    world.keep(made)
    outcomes = Outcomes(world.engine)
    for label in made:
        outcomes.report({label.decision_id: 1}, world.now)
        world.look(watch)
        world.look(watch)
    assert len(reads) == 2


def answers(watch: Watch, n: int, latency_ms: float, version: str = "v1.1", **changes: object) -> list[Decision]:
    """Let the candidate answer, and the monitor hear of it."""
    made = [decision(**{"variant": CANDIDATE, "model_version": version, **changes}) for _ in range(n)]
    watch.state.add(told(made, latency_ms, router("c")))
    return made


def firing(watch: Watch) -> list[tuple[str, str | None, str | None]]:
    return [(one["alert"], one["subject"], one["model_version"]) for one in watch.alerts()["alerts"]]


LATENCY = "inference_latency"


def test_the_next_candidate_has_an_alert_of_its_own_which_ends_its_promotion(world: World) -> None:
    watch = world.watch(SLOW)
    world.release()
    answers(watch, N, 500)
    assert world.look(watch) == [f"{LATENCY} firing"]
    entry = world.guarded("v1.2")
    world.look(watch)
    assert alarms(watch.snapshot(), SLOW.roll_back, entry, "v1.2") == []
    answers(watch, 1, 500, "v1.2")
    assert world.look(watch) == [f"{LATENCY} resolved"]
    assert world.events[0].message == "v1.1 answers nobody as candidate any more"
    assert world.events[0].model_version == "v1.1"
    answers(watch, N - 1, 500, "v1.2")
    assert world.look(watch) == [f"{LATENCY} firing"]
    assert firing(watch) == [(LATENCY, "candidate", "v1.2")]
    assert len(alarms(watch.snapshot(), SLOW.roll_back, entry, "v1.2")) == 1


def test_of_one_moment_no_alert_is_resolved_and_fires(world: World) -> None:
    """As it would where another candidate answers a whole window within one look."""
    watch = world.watch(SLOW)
    answers(watch, N, 500)
    assert world.look(watch) == [f"{LATENCY} firing"]
    answers(watch, N, 500, "v1.2")
    assert world.look(watch) == [f"{LATENCY} resolved"]
    assert world.look(watch) == [f"{LATENCY} firing"]
    assert [one["state"] for one in Alarms(world.engine).latest(10)] == ["firing", "resolved", "firing"]


def test_what_was_rolled_back_alarms_nobody_and_is_judged_anew_when_it_returns(world: World) -> None:
    watch = world.watch(SLOW)
    world.release()
    answers(watch, N, 500)
    assert world.look(watch) == [f"{LATENCY} firing"]
    world.ledger.rollback(world.author)
    answers(watch, N, 500)  # from routers that have not met the release yet
    assert world.look(watch) == [f"{LATENCY} resolved"]
    answers(watch, N, 500)
    assert world.look(watch) == []
    assert firing(watch) == []
    world.ledger.change(Step.SPLIT, split(0.5, None, None), world.author)
    assert world.look(watch) == []
    answers(watch, N - 1, 500)
    assert world.look(watch) == []
    answers(watch, 1, 500)
    assert world.look(watch) == [f"{LATENCY} firing"]


def test_outcomes_that_come_late_say_nothing_of_the_next_candidate(world: World) -> None:
    watch = world.watch()
    world.release()
    made = answers(watch, 100, 1, probability=0.9)
    world.keep(made)
    answers(watch, 1, 1, "v1.2")
    Outcomes(world.engine).report({one.decision_id: 0 for one in made}, NOW)
    assert world.look(watch) == []
    answers(watch, 1, 1)
    assert world.look(watch) == ["rolling_accuracy firing"]
    assert firing(watch) == [("rolling_accuracy", "candidate", "v1.1")]


def test_drift_of_a_bundle_that_answers_nobody_any_more_is_over(world: World) -> None:
    watch = world.watch()
    world.release()
    watch.state.learn("sha256:0", Learnt("v1.1", load_bundle("models/v1.1").reference))
    rows = np.random.default_rng(0).normal(size=(150, 23)).astype(np.float32)

    def drifts(rows: Any) -> None:
        for row in rows:
            answers(watch, 1, 1, seen=row)

    drifts(rows[:100])
    watch.state.add(told([decision()]))
    assert world.look(watch) == ["feature_drift firing"]
    assert firing(watch) == [("feature_drift", "v1.1", "v1.1")]
    world.ledger.rollback(world.author)
    assert world.look(watch) == ["feature_drift resolved"]
    assert world.events[0].message == "v1.1 answers nobody any more"
    world.ledger.change(Step.SPLIT, split(0.5, None, None), world.author)
    drifts(rows[100:])
    assert world.look(watch) == []


def test_drift_of_a_bundle_that_another_has_replaced_is_over_without_a_ledger(world: World) -> None:
    watch = world.watch()
    watch.state.learn("sha256:0", Learnt("v1.0", load_bundle("models/v1.0").reference))
    rows = np.random.default_rng(0).normal(size=(100, 23)).astype(np.float32)
    watch.state.add(told([decision(seen=row) for row in rows]))
    assert world.look(watch) == ["feature_drift firing"]
    watch.state.add(told([decision(model_version="v1.2", bundle_digest="sha256:2")]))
    assert world.look(watch) == ["feature_drift resolved"]
    assert watch.snapshot()["drift"] == {}


def test_a_watch_that_begins_again_knows_of_which_model_an_alert_is(world: World) -> None:
    before = world.watch(SLOW)
    world.release()
    world.keep(answers(before, N, 500))
    assert world.look(before) == [f"{LATENCY} firing"]
    after = world.watch(SLOW)
    assert world.look(after) == []  # nothing has been heard yet
    assert firing(after) == [(LATENCY, "candidate", "v1.1")]
    answers(after, 1, 1)
    assert world.look(after) == []
    answers(after, 1, 1, "v1.2")
    assert world.look(after) == [f"{LATENCY} resolved"]


def test_an_alert_whose_rule_is_off_is_over(world: World) -> None:
    before = world.watch(SLOW)
    answers(before, N, 500)
    assert world.look(before) == [f"{LATENCY} firing"]
    after = world.watch(AlertsConfig(inference_latency=None))
    assert world.look(after) == [f"{LATENCY} resolved"]
    assert world.events[0].message == "the rule inference_latency is off"
    assert world.look(after) == []


def test_a_ledger_that_was_altered_resolves_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    watch = world.watch(SLOW)
    world.release()
    answers(watch, N, 500)
    assert world.look(watch) == [f"{LATENCY} firing"]
    world.ledger.rollback(world.author)
    with world.engine.begin() as connection:
        connection.execute(update(releases).where(releases.c.number == 2).values(line="{}"))
    assert world.look(watch) == world.look(watch) == []
    assert caplog.text.count("who answers is not known: line 2 of the release ledger was altered") == 1


def error_rate(limit: float | None, **fields: Any) -> AlertsConfig:
    rule = None if limit is None else {"limit": limit}
    return AlertsConfig.model_validate({"error_rate": rule, "resolve_after_s": 0, **fields})


def test_other_rules_hold_from_the_next_look_on_and_what_fires_does_not_fire_again(world: World) -> None:
    watch, by = world.watch(error_rate(0.5)), router()
    failing(watch, by, 0, 80)
    failing(watch, by, 20, 0)
    assert world.look(watch) == []
    watch.configure(error_rate(0.1))
    assert world.look(watch) == ["error_rate firing"]
    watch.configure(error_rate(0.15, pending_s=5))
    assert world.look(watch) == []
    assert [alert["state"] for alert in watch.alerts()["alerts"]] == ["firing"]
    watch.configure(error_rate(0.5))
    assert world.look(watch) == ["error_rate resolved"]


def test_what_fires_is_resolved_once_its_rule_is_gone(world: World) -> None:
    watch, by = world.watch(error_rate(0.1)), router()
    failing(watch, by, 0, 80)
    failing(watch, by, 20, 0)
    assert world.look(watch) == ["error_rate firing"]
    watch.configure(error_rate(None))
    assert world.look(watch) == ["error_rate resolved"]
    assert (world.look(watch), watch.alerts()["alerts"]) == ([], [])
