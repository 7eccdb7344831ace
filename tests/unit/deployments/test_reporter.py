"""What a router tells its monitor: everything once, and what it knows again only where that was lost."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.monitor import MonitorArgs, Reporter, unpacked
from serve_app.api import Call
from serve_app.config import MonitorConfig
from serve_app.errors import BundleCorrupt
from serve_app.model import Bundle
from serve_app.monitor import Heard, Told
from serve_app.types import Bars, SignalRequest
from tests.factories import window
from tests.unit.monitor.answers import NOW, decision

ARGS = MonitorArgs(NOW, MonitorConfig())


class Actor:
    """A monitor that remembers what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Told, bool]] = []
        self.is_new = False
        self.push = SimpleNamespace(remote=self._push)

    async def _push(self, packed: bytes, args: MonitorArgs, again: bool) -> Heard:
        assert args == ARGS
        self.told.append((unpacked(packed), again))
        return Heard(self.is_new and not again, ())


def no_bundle(digest: str) -> Bundle:
    raise BundleCorrupt(digest)


@pytest.fixture
def actor() -> Actor:
    return Actor()


@pytest.fixture
def reporter(actor: Actor) -> Reporter:
    made = Reporter("signals", "router-a", ARGS, no_bundle)
    made._actor = actor
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


def said(actor: Actor) -> list[tuple[int, int, bool]]:
    """How many decisions, how many bars, and whether again."""
    return [
        (len(told.decisions), sum(len(new.times) for new in told.bars.values()), again) for told, again in actor.told
    ]


def test_a_bar_that_was_told_is_not_told_with_the_next_decision(
    actor: Actor, reporter: Reporter, bars: dict[str, Bars]
) -> None:
    before, after = window(bars["IBM"], 1), window(bars["IBM"])
    tell(reporter, call(before), call(before), call(after))
    assert said(actor) == [(1, len(before), False), (1, 0, False), (1, 1, False)]


def test_a_monitor_that_has_lost_what_it_knew_is_told_the_past_and_all_bars(
    actor: Actor, reporter: Reporter, bars: dict[str, Bars]
) -> None:
    latest: Any = window(bars["IBM"])
    tell(reporter, call(latest))
    actor.is_new = True
    tell(reporter, call(latest))
    actor.is_new = False
    tell(reporter, call(latest))
    assert said(actor) == [(1, len(latest), False), (1, 0, False), (1, 0, True), (1, len(latest), False)]
