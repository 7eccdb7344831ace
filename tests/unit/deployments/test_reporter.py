"""What a router tells its monitor: everything once, and what it knows again only where that was lost."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import ActorUnavailableError

from deployments.monitor import MonitorArgs, unpacked
from deployments.reporter import LOOK_S, TIMEOUT_S, Reporter
from serve_app.api import Call
from serve_app.config import MonitorConfig
from serve_app.errors import BundleCorrupt, MonitorUnavailable
from serve_app.model import Bundle
from serve_app.monitor import Heard, Told
from serve_app.monitor.gathering import TOLD
from serve_app.schemas import encode
from serve_app.types import Bars, Decision, SignalRequest
from tests.factories import window
from tests.unit.hurried import Hurried
from tests.unit.monitor.answers import NOW, decision

ARGS = MonitorArgs(NOW, MonitorConfig())


class Actor:
    """A monitor that remembers what it is told, and how many decisions each telling was of that it did not hear."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        self.unheard: list[int] = []
        self.is_new = False
        self.is_away = False
        self.hangs = False
        self.asked_at: list[float] = []
        self.push = SimpleNamespace(remote=self._push)
        self.snapshot = SimpleNamespace(remote=self._snapshot)
        self.view = SimpleNamespace(remote=self._view)

    async def _push(self, packed: bytes, args: MonitorArgs) -> Heard:
        assert args == ARGS
        self.asked_at.append(asyncio.get_running_loop().time())
        if self.hangs:
            await asyncio.Event().wait()
        told = unpacked(packed)
        if self.is_away:
            self.unheard.append(len(told.decisions))
            raise ActorUnavailableError("away", None)
        self.told.append(told)
        return Heard(self.is_new, ())

    async def _snapshot(self) -> dict[str, Any]:
        return {"decisions": sum(len(told.decisions) for told in self.told)}

    async def _view(self) -> bytes:
        return b'{"variants":{}}'


def no_bundle(digest: str) -> Bundle:
    raise BundleCorrupt(digest)


ELSEWHERE = {"10.0.0.9": 0.9}


class Looks:
    """What is asked how full other nodes are: fails the first time."""

    def __init__(self) -> None:
        self.at: list[float] = []

    async def __call__(self) -> dict[str, float]:
        self.at.append(asyncio.get_running_loop().time())
        if len(self.at) == 1:
            raise RuntimeError("whatever")
        return ELSEWHERE


@pytest.fixture
def actor() -> Actor:
    return Actor()


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def reporter(actor: Actor, looks: Looks, monkeypatch: pytest.MonkeyPatch) -> Reporter:
    made = Reporter("signals", "router-a", ARGS, no_bundle, looks)

    async def found() -> Actor:
        return actor

    monkeypatch.setattr(made, "_monitor", found)
    return made


def tell(reporter: Reporter, *calls: Call) -> None:
    """Let the reporter push once after each call."""

    async def all_of_them() -> None:
        for call in calls:
            reporter.record(call)
            await reporter.push()

    asyncio.run(all_of_them())


def call(bars: Bars) -> Call:
    return Call("r1", [decision()], 1.0, [SignalRequest("IBM", bars)])


def said(actor: Actor) -> list[tuple[int, int]]:
    """How many decisions, and how many bars."""
    return [(len(told.decisions), sum(len(new.times) for new in told.bars.values())) for told in actor.told]


def test_a_bar_that_was_told_is_not_told_with_the_next_decision(
    actor: Actor, reporter: Reporter, bars: dict[str, Bars]
) -> None:
    before, after = window(bars["IBM"], 1), window(bars["IBM"])
    tell(reporter, call(before), call(before), call(after))
    assert said(actor) == [(1, len(before)), (1, 0), (1, 1)]


def test_a_monitor_that_has_lost_what_it_knew_is_told_the_past_and_all_bars(
    actor: Actor, reporter: Reporter, bars: dict[str, Bars]
) -> None:
    latest: Any = window(bars["IBM"])
    tell(reporter, call(latest))
    actor.is_new = True
    tell(reporter, call(latest))
    actor.is_new = False
    tell(reporter, call(latest))
    assert said(actor) == [(1, len(latest)), (1, 0), (1, 0), (1, len(latest))]
    assert actor.told[2].decisions == actor.told[0].decisions  # the past


def many(n: int) -> Call:
    return Call("r1", [decision() for _ in range(n)], 1.0, [])


def test_a_snapshot_has_all_that_was_answered_however_many_pushes_that_takes(actor: Actor, reporter: Reporter) -> None:
    reporter.record(many(2 * TOLD + 1))
    assert asyncio.run(reporter.snapshot()) == {"decisions": 2 * TOLD + 1}
    assert [len(told.decisions) for told in actor.told] == [TOLD, TOLD, 1]


def test_those_who_look_get_what_the_monitor_says_as_it_is_and_cost_no_push(actor: Actor, reporter: Reporter) -> None:
    reporter.record(many(1))
    assert encode({"monitor": asyncio.run(reporter.view())}) == b'{"monitor":{"variants":{}}}'
    assert actor.told == []


def test_a_push_to_a_monitor_that_is_away_is_of_few_decisions_and_all_are_told_when_it_is_back(
    actor: Actor, reporter: Reporter
) -> None:
    """A push is pickled on the event loop of the router, and again with each attempt."""
    asked = many(TOLD + 1)
    reporter.record(asked)

    async def away_and_back() -> None:
        actor.is_away = True
        for _ in range(3):
            with pytest.raises(ActorUnavailableError):
                await reporter.push()
        actor.is_away = False
        await reporter.push_all()

    asyncio.run(away_and_back())
    assert actor.unheard == [TOLD] * 3
    heard = [one.decision_id for told in actor.told for one in told.decisions]
    assert heard == [one.decision_id for one in decisions_of(asked)]
    assert actor.told[-1].dropped == 0


def decisions_of(asked: Call) -> list[Decision]:
    return [one for one in asked.answers if isinstance(one, Decision)]


def test_the_longer_a_monitor_is_away_the_more_seldom_it_is_told(actor: Actor, reporter: Reporter) -> None:
    """It is there for a second, away for 20, and there again."""

    async def record_forever() -> None:
        while True:
            reporter.record(many(1))
            await asyncio.sleep(0.1)

    async def there_and_away() -> None:
        tasks = [asyncio.create_task(one) for one in (reporter.push_forever(), record_forever())]
        for seconds, is_away in ((1.2, False), (20.0, True), (3.5, False)):
            actor.is_away = is_away
            await asyncio.sleep(seconds)
        for task in tasks:
            task.cancel()

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(there_and_away())
    assert actor.asked_at == pytest.approx([0.5, 1, *[1.5, 2.5, 4.5, 8.5, 12.5, 16.5, 20.5], 24.5])


def test_whoever_asks_a_monitor_that_hangs_waits_no_longer_than_is_said(actor: Actor, reporter: Reporter) -> None:
    """Not even behind others who ask, each of whom waits for it in turn."""
    actor.hangs = True

    async def ask() -> float:
        with pytest.raises(MonitorUnavailable):
            await reporter.snapshot()
        return asyncio.get_running_loop().time()

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*(ask() for _ in range(3)))

    with asyncio.Runner(loop_factory=Hurried) as runner:
        assert runner.run(all_at_once()) == pytest.approx([TIMEOUT_S] * 3)


def test_the_monitor_is_told_how_full_this_node_is_and_those_of_stages_elsewhere(
    actor: Actor, reporter: Reporter, looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.reporter.memory_of_node", lambda: {"10.0.0.1": 0.1})

    async def look() -> None:
        looking = asyncio.ensure_future(reporter.look_forever())
        await asyncio.sleep(LOOK_S / 2)
        await reporter.push()
        await asyncio.sleep(LOOK_S)
        await reporter.push()
        looking.cancel()

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(look())
    assert looks.at == [0, LOOK_S]
    assert [told.memory for told in actor.told] == [{"10.0.0.1": 0.1}, {"10.0.0.1": 0.1} | ELSEWHERE]
