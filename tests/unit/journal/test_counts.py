"""What a monitor takes from the journal, and what it leaves there, in either database."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from sqlalchemy import Engine, inspect

from serve_app.journal import Alarms, connect, count, matured
from serve_app.journal.outcomes import Outcomes
from serve_app.journal.record import pack
from serve_app.journal.schema import metadata
from serve_app.journal.store import Decisions
from serve_app.types import Action, Decision, Reason, Row, VariantName
from tests.unit.decisions import ABSTAINED, DECIDED

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROW = Row(1, features=np.ones((2, 3)))
PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


@pytest.fixture
def engine(url: str) -> Engine:
    engine = connect(url)
    metadata.drop_all(engine)
    return connect(url)


def keep(engine: Engine, made: Sequence[Decision]) -> None:
    """A second apart."""
    Decisions(engine).keep([pack(one, ROW, NOW + timedelta(seconds=i)) for i, one in enumerate(made)])


def named(n: int, **changes: object) -> list[Decision]:
    return [replace(DECIDED, decision_id=f"{i}", **changes) for i in range(n)]  # type: ignore[arg-type]


def test_every_decision_is_counted_by_what_the_monitor_counts(engine: Engine) -> None:
    keep(engine, [*named(5), ABSTAINED])
    counted = count(engine, 3)
    assert Counter(counted.kinds) == {
        (CANDIDATE, "v1.1", Action.BUY, None, 2): 5,
        (CANDIDATE, "v1.1", Action.HOLD, Reason.DEADLINE, 2): 1,
    }
    assert counted.latest == ["3", "4", "d-2"]


def test_an_empty_journal_counts_nothing(engine: Engine) -> None:
    assert count(engine, 3) == ({}, [])
    assert matured(engine) == {}
    assert Alarms(engine).latest(10) == []


def test_what_came_true_is_that_of_the_bundle_that_answered_last(engine: Engine) -> None:
    old = [replace(one, decision_id=f"old-{one.decision_id}", bundle_digest="sha256:old") for one in named(2)]
    new = named(4, probability=0.25)
    production = replace(DECIDED, decision_id="p", variant=PRODUCTION, model_version="v1.0", probability=0.75)
    keep(engine, [*old, *new, ABSTAINED, production])
    outcomes = Outcomes(engine)
    outcomes.report({"1": 1, "0": 0, "d-2": 1, "2": None}, NOW)
    outcomes.report({"old-0": 1, "old-1": 1, "p": 1}, NOW + timedelta(seconds=1))
    found = matured(engine)
    assert {name: (one.probabilities.tolist(), one.labels.tolist()) for name, one in found.items()} == {
        CANDIDATE: ([0.25, 0.25], [0.0, 1.0]),
        PRODUCTION: ([0.75], [1.0]),
    }
    assert {name: one.model_version for name, one in found.items()} == {CANDIDATE: "v1.1", PRODUCTION: "v1.0"}
    assert list(matured(engine, latest=1)) == [PRODUCTION]


def test_alerts_are_kept_once_and_come_back_in_their_order(engine: Engine) -> None:
    event = {"id": "a", "since": NOW, "alert": "memory", "subject": None, "state": "firing", "value": 0.9, "limit": 0.8}
    told = [{**event, "message": "full"}, {**event, "id": "b", "since": NOW + timedelta(seconds=1), "message": "well"}]
    alarms = Alarms(engine)
    alarms.keep(told)
    alarms.keep(told[1:])
    assert alarms.latest(10) == [{**one, "model_version": None} for one in told]
    assert [one["id"] for one in alarms.latest(1)] == ["b"]


def test_an_alert_that_comes_back_is_of_the_model_that_answered_then(engine: Engine) -> None:
    first, second = (replace(one, model_version=f"v1.{i}") for i, one in enumerate(named(2)))
    for minute, one in enumerate(
        (first, second, replace(DECIDED, decision_id="p", variant=PRODUCTION, model_version="v2"))
    ):
        Decisions(engine).keep([pack(one, ROW, NOW + timedelta(minutes=minute))])
    event = {"id": "a", "state": "firing", "value": 0.9, "limit": 0.8, "message": "", "alert": "inference_latency"}
    told = [
        {**event, "id": "early", "since": NOW - timedelta(seconds=1), "subject": "candidate"},
        {**event, "id": "first", "since": NOW, "subject": "candidate"},
        {**event, "id": "still first", "since": NOW + timedelta(seconds=59), "subject": "candidate"},
        {**event, "id": "drift", "since": NOW + timedelta(minutes=4), "subject": "v0.9", "alert": "feature_drift"},
        {**event, "id": "second", "since": NOW + timedelta(minutes=5), "subject": "candidate"},
    ]
    Alarms(engine).keep(told)
    assert {one["id"]: one["model_version"] for one in Alarms(engine).latest(10)} == {
        "early": None,
        "first": "v1.0",
        "still first": "v1.0",
        "drift": "v0.9",
        "second": "v1.1",
    }


def test_a_database_of_an_earlier_release_gets_the_index_that_it_lacks(url: str) -> None:
    engine = connect(url)
    metadata.drop_all(engine)
    for table in metadata.tables.values():
        without = table.to_metadata(type(metadata)())
        without.indexes.clear()
        without.create(engine)
    assert inspect(engine).get_indexes("outcomes") == []
    connect(url)
    assert [index["column_names"] for index in inspect(engine).get_indexes("outcomes")] == [["at"]]
