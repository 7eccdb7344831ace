"""What both models predicted of the same bar, in either database."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np

from serve_app.config import JournalConfig
from serve_app.journal import Journal, ScoredByBoth, connect, scored_by_both
from serve_app.journal.schema import metadata
from serve_app.types import Decision, Row, Status, VariantName
from tests.unit.decisions import DECIDED

ROW = Row(1, features=np.ones((2, 3)))
OLD, NEW = "sha256:" + "0" * 64, "sha256:" + "1" * 64


def decided(name: str, hour: int, probability: float, by: str = OLD) -> Decision:
    assert DECIDED.timestamp is not None
    return replace(
        DECIDED,
        decision_id=name,
        timestamp=DECIDED.timestamp + timedelta(hours=hour),
        probability=probability,
        bundle_digest=by,
        variant=VariantName.PRODUCTION,
    )


def test_pairs_are_what_both_predicted_whoever_answered(url: str, tmp_path: Path) -> None:
    metadata.drop_all(connect(url))
    journal = Journal(JournalConfig(url=url, spool=str(tmp_path / "spool")))
    first, again, swapped = decided("a", 0, 0.1), decided("b", 0, 0.9), decided("c", 1, 0.3, by=NEW)
    alone, failed = decided("d", 2, 0.4), decided("e", 3, 0.5)
    timeless, stranger = replace(decided("f", 4, 0.6), timestamp=None), decided("g", 5, 0.7, by="sha256:" + "2" * 64)
    for one in (first, again, swapped, alone, failed, timeless, stranger):
        journal.keep([(one, ROW)])
        journal.ship()
    others = [(first, NEW, 0.2), (again, NEW, 0.8), (swapped, OLD, 0.6), (timeless, NEW, 0.5), (stranger, NEW, 0.5)]
    journal.keep_shadows([replace(one, bundle_digest=by, probability=p) for one, by, p in others])
    journal.keep_shadows([replace(failed, bundle_digest=NEW, status=Status.ABSTAIN, probability=None)])
    journal.ship()
    asyncio.run(journal.report({"c": 1}))
    found = scored_by_both(journal.engine, [OLD, NEW])
    asyncio.run(journal.close())
    times = [np.datetime64("2026-03-01T00", "us"), np.datetime64("2026-03-01T01", "us")]
    assert found == [
        ScoredByBoth("IBM", times[0], {OLD: 0.1, NEW: 0.2}, None),
        ScoredByBoth("IBM", times[1], {NEW: 0.3, OLD: 0.6}, 1),
    ]
