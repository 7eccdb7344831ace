"""What came of decisions, in either database."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from serve_app.config import JournalConfig
from serve_app.journal import Journal, Report, connect
from serve_app.journal.outcomes import Outcomes
from serve_app.journal.schema import metadata, outcomes
from serve_app.types import Row
from tests.unit.decisions import ABSTAINED, DECIDED

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = Row(1, features=np.ones((2, 3)))


@pytest.fixture
def journal(url: str, tmp_path: Path) -> Iterator[Journal]:
    """With the decisions d-1 and d-2."""
    metadata.drop_all(connect(url))
    journal = Journal(JournalConfig(url=url, spool=str(tmp_path / "spool"), ship_ms=5), lambda: NOW)
    journal.keep([(DECIDED, ROW), (ABSTAINED, ROW)])
    journal.ship()
    yield journal
    asyncio.run(journal.close())


def kept(journal: Journal) -> dict[str, tuple[int, datetime]]:
    with journal.engine.connect() as connection:
        return {row[0]: (row[1], row[2]) for row in connection.execute(select(outcomes))}


def test_the_first_report_of_each_decision_stays(journal: Journal) -> None:
    reported = Outcomes(journal.engine)
    assert reported.report({"d-1": 1, "d-2": 0}, NOW) == {"d-1": Report.RECORDED, "d-2": Report.RECORDED}
    later = NOW + timedelta(hours=1)
    said = reported.report({"d-1": 1, "d-2": 1, "d-3": 0}, later)
    assert said == {"d-1": Report.REPEATED, "d-2": Report.CONFLICTING, "d-3": Report.UNKNOWN}
    assert kept(journal) == {"d-1": (1, NOW), "d-2": (0, NOW)}


def test_an_outcome_that_comes_before_its_decision_is_shipped_waits_for_it(journal: Journal) -> None:
    with journal.engine.begin() as connection:
        connection.execute(metadata.tables["decisions"].delete())
    journal.keep([(DECIDED, ROW)])

    reported = asyncio.run(journal.report({"d-1": 1, "d-3": 1}))
    assert reported == {"d-1": Report.RECORDED, "d-3": Report.UNKNOWN}


def test_of_many_reporters_at_once_one_label_wins_and_the_others_are_told(journal: Journal) -> None:
    said: list[Report] = []
    together = threading.Barrier(8)

    def report(label: int) -> None:
        together.wait()
        said.append(Outcomes(journal.engine).report({"d-1": label}, NOW)["d-1"])

    reporters = [threading.Thread(target=report, args=(i % 2,)) for i in range(8)]
    for reporter in reporters:
        reporter.start()
    for reporter in reporters:
        reporter.join()
    assert Counter(said)[Report.CONFLICTING] == 4
    assert len(kept(journal)) == 1
