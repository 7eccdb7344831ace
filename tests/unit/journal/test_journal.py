"""What a router keeps, in either database."""

import asyncio
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
from serve_app.types import Row, VariantName
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
    assert list(Path(config.spool).iterdir()) == []
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
