"""Decisions as a file, and their end, in either database."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from sqlalchemy import select

from deployments.cli import main
from serve_app.config import JournalConfig
from serve_app.journal import Journal, connect, unpack_row
from serve_app.journal import keeping as module
from serve_app.journal.keeping import export, forget
from serve_app.journal.outcomes import Outcomes
from serve_app.journal.schema import metadata, shadows
from serve_app.types import Row
from tests.unit.decisions import ABSTAINED, DECIDED

ROW = Row(1, features=np.arange(6.0).reshape(2, 3))
DAYS = [datetime(2026, 3, day, tzinfo=UTC) for day in (1, 2, 3)]


@pytest.fixture
def journal(url: str, tmp_path: Path) -> Iterator[Journal]:
    """Two decisions a day, for three days; of the first it is known what came of it."""
    metadata.drop_all(connect(url))
    days = iter(sorted(2 * DAYS))  # decisions, and their shadows
    journal = Journal(JournalConfig(url=url, spool=str(tmp_path / "spool")), lambda: next(days))
    for i in range(len(DAYS)):
        made = [replace(one, decision_id=f"{one.decision_id}-{i}") for one in (DECIDED, ABSTAINED)]
        journal.keep([(one, ROW) for one in made])
        journal.keep_shadows(made[:1])
    journal.ship()
    Outcomes(journal.engine).report({"d-1-0": 1}, DAYS[2])
    yield journal
    asyncio.run(journal.close())


def test_what_is_exported_is_what_was_decided(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS", 4)  # more than one chunk
    path = tmp_path / "decisions.parquet"
    assert export(journal.engine, path) == 6
    rows = pq.read_table(path).to_pylist()
    assert [row["decision_id"] for row in rows] == [f"d-{n}-{i}" for i in range(3) for n in (1, 2)]
    first, second = rows[:2]
    assert (first["at"], first["timestamp"], first["probability"]) == (DAYS[0], DECIDED.timestamp, 0.7)
    assert (first["timings_ms"], first["label"], first["label_at"]) == ([("model", 1.5)], 1, DAYS[2])
    assert (second["reason"], second["probability"], second["label"]) == ("deadline", None, None)
    inputs = unpack_row(first["inputs"]).features
    assert inputs is not None
    assert np.array_equal(inputs, np.arange(6.0).reshape(2, 3))
    assert [one.name for one in tmp_path.iterdir() if one.name.endswith(".part")] == []


def test_a_time_is_counted_once(journal: Journal, tmp_path: Path) -> None:
    path = tmp_path / "decisions.parquet"
    assert [export(journal.engine, path, a, b) for a, b in ((None, DAYS[1]), (DAYS[1], DAYS[2]), (DAYS[2], None))] == [
        2,
        2,
        2,
    ]


def test_what_is_forgotten_is_gone_with_what_came_of_it(journal: Journal, tmp_path: Path) -> None:
    assert forget(journal.engine, DAYS[1]) == 2
    with journal.engine.connect() as connection:
        assert sorted(connection.scalars(select(shadows.c.decision_id))) == ["d-1-1", "d-1-2"]
    assert export(journal.engine, tmp_path / "decisions.parquet") == 4
    assert set(Outcomes(journal.engine).report({"d-1-0": 1}, DAYS[2]).values()) == {"unknown"}


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal = Journal(JournalConfig(url="sqlite:///kept.db", spool="spool"), lambda: DAYS[0])
    journal.keep([(DECIDED, ROW)])
    asyncio.run(journal.close())
    run = CliRunner().invoke
    of = ["--journal", "sqlite:///kept.db"]
    said = run(main, ["journal", "export", "--to", "a.parquet", *of])
    assert (said.exit_code, said.output) == (0, "a.parquet: 1 decisions\n")
    said = run(main, ["journal", "export", "--to", "b.parquet", "--since", "2026-03-02", *of])
    assert said.output == "b.parquet: 0 decisions\n"
    assert "cannot be written" in run(main, ["journal", "export", "--to", "no/a.parquet", *of]).output
    said = run(main, ["journal", "export", "--to", "a.parquet", "--journal", "sqlite:///other.db"])
    assert said.exit_code == 1
    assert "there is no" in said.output
    assert not Path("other.db").exists()
    assert run(main, ["journal", "forget", "--before", "2026-03-02", *of], input="n\n").exit_code == 1
    assert run(main, ["journal", "forget", "--before", "2026-03-02", "--yes", *of]).output == "1 decisions are gone\n"
