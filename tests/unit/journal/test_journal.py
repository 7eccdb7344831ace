"""What a router keeps, in either database."""

import asyncio
import os
import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from serve_app.config import JournalConfig
from serve_app.errors import SpoolUnavailable, UnknownDecision
from serve_app.journal import Journal, connect
from serve_app.journal.schema import decisions, metadata, shadows
from serve_app.journal.store import folder_of
from serve_app.journal.vitals import latest, vitals
from serve_app.types import Row, VariantName, Vitals
from tests.unit.decisions import ABSTAINED, DECIDED

ROW = Row(1, features=np.ones((2, 3)))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def config(url: str, tmp_path: Path) -> JournalConfig:
    metadata.drop_all(connect(url))
    return JournalConfig(url=url, spool=str(tmp_path / "spool"), ship_ms=5)


def journal_of(config: JournalConfig) -> Journal:
    return Journal(config, lambda: NOW)


def test_what_is_kept_is_found(config: JournalConfig) -> None:
    journal = journal_of(config)
    journal.keep([(DECIDED, ROW), (ABSTAINED, ROW)])
    assert journal.ship() == 2
    found = asyncio.run(journal.find("d-1"))
    assert (found["at"], found["timestamp"], found["epoch"]) == (NOW, DECIDED.timestamp, 3)
    assert (found["probability"], found["timings_ms"]) == (0.7, {"model": 1.5})
    assert asyncio.run(journal.find("d-2"))["timestamp"] is None
    with pytest.raises(UnknownDecision, match="no decision d-3"):
        asyncio.run(journal.find("d-3"))
    asyncio.run(journal.close())


def test_a_shadow_is_kept_beside_the_decision_once(config: JournalConfig) -> None:
    journal = journal_of(config)
    scored = replace(DECIDED, variant=VariantName.CANDIDATE, model_version="v1.1", probability=0.6)
    journal.keep([(DECIDED, ROW)])
    journal.keep_shadows([scored])
    journal.keep_shadows([replace(scored, probability=0.1)])
    assert journal.ship() == 3
    assert asyncio.run(journal.find("d-1"))["probability"] == 0.7
    with journal.engine.connect() as connection:
        kept = connection.execute(select(shadows)).mappings().all()
    assert [(row["decision_id"], row["variant"], row["probability"], row["at"]) for row in kept] == [
        ("d-1", "candidate", 0.6, NOW)
    ]
    asyncio.run(journal.close())


def test_whoever_asks_at_once_waits_until_it_is_shipped(config: JournalConfig) -> None:
    journal = journal_of(config)
    journal.keep([(DECIDED, ROW)])
    assert asyncio.run(journal.find("d-1"))["symbol"] == "IBM"
    asyncio.run(journal.close())


def test_of_one_id_the_first_stays(config: JournalConfig) -> None:
    first, second = journal_of(config), Journal(config, lambda: NOW.replace(hour=13))
    for journal in (first, first, second):
        journal.keep([(DECIDED, ROW)])
        journal.ship()
    assert asyncio.run(second.find("d-1"))["at"] == NOW
    with first.engine.connect() as connection:
        assert connection.scalar(select(func.count()).select_from(decisions)) == 1
    asyncio.run(first.close())
    asyncio.run(second.close())


def test_a_router_that_ends_leaves_nothing_behind(config: JournalConfig) -> None:
    journal = journal_of(config)
    journal.keep([(DECIDED, ROW)])
    asyncio.run(journal.close())
    assert [path for path in Path(config.spool).rglob("*") if path.is_file()] == []
    after = journal_of(config)
    assert asyncio.run(after.find("d-1"))["symbol"] == "IBM"
    asyncio.run(after.close())
    with pytest.raises(SpoolUnavailable):
        after.keep([(DECIDED, ROW)])


def test_while_the_database_is_away_decisions_wait_and_are_shipped_when_it_is_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "journal.db"
    journal = journal_of(JournalConfig(url=f"sqlite:///{file}", spool=str(tmp_path / "spool"), ship_ms=5))

    async def watched() -> None:
        shipping = asyncio.create_task(journal.ship_forever())
        metadata.drop_all(journal.engine)
        journal.keep([(DECIDED, ROW)])
        while "stay in the spool" not in caplog.text:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)
        metadata.create_all(journal.engine)
        while "answers again" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        assert (await journal.find("d-1"))["symbol"] == "IBM"
        shipping.cancel()

    asyncio.run(asyncio.wait_for(watched(), 30))
    asyncio.run(journal.close())


def test_times_of_any_zone_are_kept_as_instants(config: JournalConfig) -> None:
    east = NOW.astimezone(timezone(timedelta(hours=5)))
    journal = Journal(config, lambda: east)
    journal.keep([(replace(DECIDED, timestamp=east), ROW)])
    journal.ship()
    found = asyncio.run(journal.find("d-1"))
    assert (found["at"], found["timestamp"]) == (NOW, NOW)
    with journal.engine.connect() as connection:
        assert connection.scalar(select(func.count()).where(decisions.c.at == east)) == 1
    asyncio.run(journal.close())


def test_one_ships_for_all_who_wait_and_nobody_goes_before_what_was_kept_is_there(
    config: JournalConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = journal_of(config)
    ship, entered, go_on, shipped = journal.ship, threading.Event(), threading.Event(), []

    def slow() -> int:
        entered.set()
        assert go_on.wait(30)
        shipped.append(ship())
        return shipped[-1]

    async def ask() -> None:
        early = asyncio.create_task(journal.shipped())
        assert await asyncio.to_thread(entered.wait, 30)
        journal.keep([(DECIDED, ROW)])  # too late for the one that has begun, as far as anybody can know
        late = [asyncio.create_task(journal.shipped()) for _ in range(50)]
        given_up = late.pop()
        await asyncio.sleep(0)
        given_up.cancel()
        go_on.set()
        await asyncio.gather(early, *late)
        assert "d-1" in await journal.found(["d-1"])

    monkeypatch.setattr(journal, "ship", slow)
    asyncio.run(ask())
    assert (len(shipped), sum(shipped)) == (2, 1)
    asyncio.run(journal.close())


def test_routers_of_another_database_do_not_adopt_what_a_dead_one_left(tmp_path: Path) -> None:
    spool = str(tmp_path / "spool")
    mine, other, later = (
        Journal(JournalConfig(url=f"sqlite:///{tmp_path}/{name}.db", spool=spool)) for name in ("mine", "other", "mine")
    )
    mine.keep([(DECIDED, ROW)])
    os.close(mine._spool._current.file)  # as when its process dies
    assert [other.ship(), later.ship()] == [0, 1]
    for journal in (other, later):
        asyncio.run(journal.close())


def test_the_place_of_a_database_is_the_same_whoever_reaches_it_and_however_patiently() -> None:
    same = (
        "postgresql+psycopg://a:x@h:5432/d",
        "postgresql+psycopg://b@h:5432/d?connect_timeout=3",
        "postgresql://h:5432/d",
    )
    others = ("postgresql+psycopg://a:x@h/e", "postgresql+psycopg://a:x@/d?host=/run", "sqlite:///d", "sqlite:///e")
    assert len({folder_of(url) for url in same}) == 1
    assert len({folder_of(url) for url in (same[0], *others)}) == 5


def test_the_vitals_are_of_the_stages_and_of_one_variant_in_one_epoch(config: JournalConfig) -> None:
    """A request waits in a queue before the stages, and a shadow does not: they are compared without it."""
    journal = journal_of(config)
    waited = replace(DECIDED, timings_ms={"queue": 100.0, "model": 1.5})
    journal.keep([(waited, ROW), (replace(ABSTAINED, decision_id="d-3"), ROW)])
    journal.keep_shadows([replace(DECIDED, decision_id="d-4", timings_ms={"model": 1.5})])
    journal.keep([(replace(DECIDED, decision_id="d-5", epoch=4), ROW)])
    journal.keep([(replace(DECIDED, decision_id="d-6", variant=VariantName.PRODUCTION), ROW)])
    journal.ship()
    assert vitals(journal.engine, 3, VariantName.CANDIDATE) == Vitals(answered=2, abstained=1, p95_ms=1.5)
    asyncio.run(journal.close())


def test_vitals_are_looked_up_without_a_walk_through_the_journal(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path}/journal.db")
    for table in (decisions, shadows):
        asked = latest(table, 3, VariantName.CANDIDATE).compile(engine, compile_kwargs={"literal_binds": True})
        with engine.connect() as connection:
            plan = str(connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {asked}").all())
        assert f"USING INDEX ix_{table}_epoch_variant_at (epoch=? AND variant=?)" in plan
        assert "SCAN" not in plan
        assert "TEMP B-TREE" not in plan
    engine.dispose()
