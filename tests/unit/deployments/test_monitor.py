"""The monitor outlives the applications that tell it, and goes by that which was built last."""

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from deployments import monitor
from deployments.monitor import FORSAKEN_S, REPLICAS_S, MonitorActor, MonitorArgs, packed
from serve_app.config import MonitorConfig
from serve_app.errors import MonitorUnavailable
from serve_app.journal import connect
from serve_app.journal.record import pack
from serve_app.journal.store import Decisions
from serve_app.monitor import Gathering, Heard
from serve_app.types import Decision, Row, VariantName
from tests.unit.hurried import Hurried
from tests.unit.monitor.answers import NOW, decision, router, told


@pytest.fixture
def actor(monkeypatch: pytest.MonkeyPatch) -> MonitorActor:
    monkeypatch.setattr(monitor, "MonitorMetrics", lambda: SimpleNamespace(show=lambda _: None))
    return MonitorActor()


def built(minute: int, journal: str | None = None, window: int = 10_000, **alerts: Any) -> MonitorArgs:
    """The configuration of an application that was built at some minute."""
    config = MonitorConfig.model_validate({"window": window, "alerts": alerts})
    return MonitorArgs(NOW + timedelta(minutes=minute), config, journal)


async def tell(actor: MonitorActor, args: MonitorArgs, *made: Decision, by: Gathering | None = None) -> Heard:
    return await actor.push(packed(told(made, by=by)), args)


async def requests(actor: MonitorActor) -> int:
    variants = (await actor.snapshot())["variants"]
    return sum(one["requests"] for one in variants.values())


def in_force(actor: MonitorActor) -> tuple[float | None, int, str | None]:
    """The limit of `memory`, the window, and the webhook."""
    assert actor._watch is not None
    rule = actor._watch._config.memory
    return rule.limit if rule else None, actor._watch.state.snapshot()["latency_window"], actor._webhook._url


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


OLD = built(0, window=2_000, memory={"limit": 0.5}, webhook="http://old.test")
NEW = built(1, window=3_000, memory={"limit": 0.6}, webhook="http://new.test")
OF_OLD, OF_NEW = (0.5, 2_000, "http://old.test"), (0.6, 3_000, "http://new.test")


def test_a_monitor_follows_the_application_that_was_built_last_and_knows_what_it_knew(actor: MonitorActor) -> None:
    async def test() -> None:
        await tell(actor, OLD, decision())
        assert in_force(actor) == OF_OLD
        watching = actor._watching
        await tell(actor, NEW, decision(), by=router("b"))
        assert in_force(actor) == OF_NEW
        assert await requests(actor) == 2
        assert actor._watching is watching  # a second watch of one state would count the journal twice

    run(test())


def test_a_router_on_its_way_out_is_heard_and_changes_nothing_back(actor: MonitorActor) -> None:
    async def test() -> None:
        await tell(actor, NEW, decision())
        await tell(actor, OLD, decision(), by=router("b"))
        assert in_force(actor) == OF_NEW
        assert await requests(actor) == 2

    run(test())


def test_a_monitor_that_has_begun_again_follows_whoever_tells_first_and_then_the_newest(actor: MonitorActor) -> None:
    async def test() -> None:
        with pytest.raises(MonitorUnavailable, match="begun again"):
            await actor.snapshot()
        await tell(actor, OLD)
        await tell(actor, NEW)
        await tell(actor, OLD)
        assert in_force(actor) == OF_NEW

    run(test())


def test_an_application_that_is_built_again_from_the_same_changes_nothing(actor: MonitorActor) -> None:
    """Not even how long something has been well again."""

    async def test() -> None:
        await tell(actor, built(0))
        assert actor._watch is not None
        book = actor._watch._book
        await tell(actor, built(1))
        assert actor._watch._book is book
        await tell(actor, built(2, pending_s=1))
        assert actor._watch._book is not book

    run(test())


def test_a_webhook_may_come_and_go(actor: MonitorActor) -> None:
    async def test() -> None:
        await tell(actor, built(0))
        assert actor._posting is None
        for minute, webhook in enumerate(("http://a.test", None, "http://b.test"), start=1):
            await tell(actor, built(minute, webhook=webhook))
            assert (actor._webhook._url, actor._posting is None) == (webhook, False)

    run(test())


def kept(journal: str, *made: Decision) -> None:
    Decisions(connect(journal)).keep([pack(one, Row(1, features=np.ones((2, 3))), NOW) for one in made])


async def restored(actor: MonitorActor) -> None:
    """Wait until the monitor has taken over what its journal has."""
    while not (actor._watch and actor._watch._restored):  # noqa: ASYNC110  nobody tells of it
        await asyncio.sleep(0.01)


def test_over_another_journal_all_begins_anew_and_routers_of_the_old_one_count_nothing(
    actor: MonitorActor, tmp_path: Path
) -> None:
    journals = [f"sqlite:///{tmp_path / name}.db" for name in ("old", "new")]
    old, new = (built(minute, journal) for minute, journal in enumerate(journals))
    kept(journals[0], *[decision() for _ in range(10)])
    kept(journals[1], *[decision() for _ in range(200)])

    async def test() -> None:
        leaving, joining = router("a"), router("b")
        assert (await tell(actor, old, decision(), by=leaving)).is_new
        await asyncio.wait_for(restored(actor), 10)
        assert await requests(actor) == 11
        watching = actor._watching
        assert watching is not None
        assert (await tell(actor, new, decision(), by=joining)).is_new
        await asyncio.wait_for(restored(actor), 10)
        assert not (await tell(actor, old, decision(), by=leaving)).is_new
        assert await requests(actor) == 201
        await asyncio.wait([watching])
        assert watching.cancelled()

    run(test())


def test_over_the_same_journal_by_another_password_routers_of_the_old_one_are_counted(
    actor: MonitorActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "Watch", lambda state, *_, **__: SimpleNamespace(state=state, watch_forever=forever))
    old, new = (built(m, f"postgresql+psycopg://ada:{m}@host/journal") for m in range(2))

    async def test() -> None:
        for args in (old, new, old):
            await tell(actor, args, decision())
        assert actor._watch is not None
        assert actor._watch.state.snapshot()["variants"]["production"]["requests"] == 2

    run(test())


async def forever() -> None:
    await asyncio.Event().wait()


def test_without_a_journal_a_variant_that_the_new_file_asks_no_more_has_no_alert_left(actor: MonitorActor) -> None:
    slow: dict[str, Any] = {"inference_latency": {"limit": 0.001, "window": 1}, "pending_s": 0}
    both = replace(built(0, **slow), asked=frozenset(VariantName))
    alone = replace(built(1, **slow), asked=frozenset({VariantName.PRODUCTION}))
    made = [decision(variant=name) for name in VariantName]

    async def firing() -> list[str]:
        assert actor._watch is not None
        await actor._watch.look()
        return sorted(one["subject"] for one in actor._watch.alerts()["alerts"])

    async def test() -> None:
        await tell(actor, both, *made)
        assert await firing() == ["candidate", "production"]
        await tell(actor, alone)
        assert await firing() == ["production"]

    run(test())


def test_a_monitor_ends_when_no_router_has_told_it_anything_for_long(
    actor: MonitorActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[float] = []

    async def test() -> None:
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(monitor, "_end_this_actor", lambda: ended.append(loop.time()))
        for _ in range(3):
            await tell(actor, OLD, decision())
            await asyncio.sleep(0.9 * FORSAKEN_S)
        assert ended == []
        await asyncio.sleep(0.2 * FORSAKEN_S)

    with asyncio.Runner(loop_factory=Hurried) as runner:
        runner.run(test())
    assert ended == pytest.approx([2.8 * FORSAKEN_S])


def test_the_controller_is_asked_for_its_replicas_once_for_all_routers(
    actor: MonitorActor, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def replicas() -> dict[str, Any]:
        asked.append(1)
        return {"signals": {}}

    monkeypatch.setattr(monitor, "replicas", replicas)

    async def test() -> None:
        told = await asyncio.gather(*(actor.replicas() for _ in range(3)))
        assert told == [{"signals": {}}] * 3
        assert len(asked) == 1
        actor._counted_at -= REPLICAS_S
        await actor.replicas()
        assert len(asked) == 2

    run(test())
