"""What cannot be had is left out and said; what is dear is asked for seldom, and nobody waits for it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from serve_app.config import Topology
from serve_app.dashboard import Sources, View
from serve_app.dashboard.view import STAGES_S, Aged
from serve_app.errors import JournalUnavailable, MonitorUnavailable
from serve_app.types import VariantName
from tests.unit.hurried import Hurried


async def nothing() -> dict[str, Any]:
    return {}


def sources(monitor: Callable[[], Awaitable[Any]] = nothing, stages: Callable[[], Awaitable[Any]] = nothing) -> Sources:
    async def chart(symbol: str) -> dict[str, Any]:
        return {"symbol": symbol}

    return Sources(Topology.FUSED, monitor, chart, stages, lambda: {VariantName.PRODUCTION: "not yet"})


async def settled() -> None:
    """Let what was asked for in the background come."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_without_a_journal_there_are_no_releases_and_no_evidence() -> None:
    seen = asyncio.run(View(sources(), None, None).now())
    assert (seen["releases"], seen["experiment"], seen["trouble"]) == (None, None, [])
    assert seen["readiness"] == {"production": "not yet"}


def test_a_monitor_that_is_away_is_said_and_the_rest_is_shown() -> None:
    async def away() -> dict[str, Any]:
        raise MonitorUnavailable("the monitor does not answer; try again")

    async def stages() -> dict[str, Any]:
        return {"router": {"running": 2}}

    async def looked() -> dict[str, Any]:
        view = View(sources(away, stages), None, None)
        await view.now()
        await settled()
        return await view.now()

    seen = asyncio.run(looked())
    assert seen["monitor"] is None
    assert seen["trouble"] == ["the monitor does not answer; try again"]
    assert seen["stages"] == {"router": {"running": 2}}


def test_what_is_dear_is_asked_for_once_it_is_old() -> None:
    asked: list[float] = []

    async def look() -> None:
        async def stages() -> int:
            asked.append(now)
            return len(asked)

        view = View(sources(stages=stages), None, None, lambda: now)
        now = 50.0
        for passed in (0.0, 0.5, STAGES_S - 0.5, 0.5):
            now += passed
            await view.now()
            await settled()
        assert (await view.now())["stages"] == 2

    asyncio.run(look())
    assert asked == [50.0, 50 + STAGES_S]


def test_nobody_waits_for_what_takes_long() -> None:
    async def look() -> None:
        over = asyncio.Event()

        async def slow() -> str:
            await over.wait()
            return "known"

        part = Aged("evidence", slow, 1.0)
        for now in (0.0, 5.0):  # old again, and still being asked for
            part.refresh(now)
            await settled()
        assert part.value is None
        over.set()
        await settled()
        assert part.value == "known"

    asyncio.run(look())


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (JournalUnavailable("the database does not answer"), "evidence: the database does not answer"),
        (ValueError("/secret/path"), "evidence: ValueError"),
    ],
)
def test_why_something_is_missing_is_said_until_it_is_there(error: Exception, said: str) -> None:
    async def look() -> None:
        async def ask() -> str:
            if errors:
                raise errors.pop()
            return "known"

        errors = [error]
        part = Aged("evidence", ask, 1.0)
        part.refresh(0.0)
        await settled()
        assert (part.value, part.trouble) == (None, said)
        part.refresh(2.0)
        await settled()
        assert (part.value, part.trouble) == ("known", None)

    asyncio.run(look())


def test_what_takes_long_is_asked_for_the_more_seldom() -> None:
    asked: list[float] = []

    async def look() -> None:
        now = asyncio.get_running_loop().time

        async def slow() -> None:
            asked.append(now())
            await asyncio.sleep(3)

        part = Aged("evidence", slow, 60.0, spares=100)
        for _ in range(700):
            part.refresh(now())
            await asyncio.sleep(1)

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(look())
    assert asked == [0, 300, 600]
