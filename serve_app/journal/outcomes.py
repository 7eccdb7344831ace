"""What really happened after a decision, as whoever asked for it reports."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

import numpy as np
from sqlalchemy import Column, Connection, Engine, Table, select

from serve_app.journal.schema import decisions, outcomes
from serve_app.journal.store import answering, insert_if_absent
from serve_app.types import Status

Labels = Mapping[str, int | None]
"""0, 1 or, where nobody will ever know, None, by decision id."""


class Report(StrEnum):
    """What became of an outcome that was reported."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    """The same was recorded before."""
    CONFLICTING = "conflicting"
    """Another one was recorded before, and stays."""
    UNKNOWN = "unknown"
    """There is no such decision."""


@dataclass(frozen=True, slots=True)
class Open:
    """A decision that rests on a model, says the time of its bar, and has no outcome."""

    decision_id: str
    symbol: str
    time: np.datetime64
    """UTC."""
    bundle_digest: str


class Outcomes:
    """One outcome a decision: the first that is reported."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def without(self) -> Iterator[Open]:
        """Return the decisions that have none. Raises JournalUnavailable."""
        made = decisions.c
        query = (
            select(made.decision_id, made.symbol, made.timestamp, made.bundle_digest)
            .outerjoin(outcomes, outcomes.c.decision_id == made.decision_id)
            .where(outcomes.c.decision_id.is_(None), made.status == Status.OK, made.timestamp.is_not(None))
        )
        with answering(), self._engine.connect() as connection:
            rows = connection.execute(query).all()
        for identity, symbol, time, digest in rows:
            yield Open(identity, symbol, np.datetime64(time.replace(tzinfo=None), "us"), digest)

    def report(self, labels: Labels, at: datetime) -> dict[str, Report]:
        """Record labels, all in one transaction. Raises JournalUnavailable."""
        with answering(), self._engine.begin() as connection:
            known = set(_found(connection, decisions, decisions.c.decision_id, labels))
            before = _found(connection, outcomes, outcomes.c.label, labels)
            new = [{"decision_id": i, "label": labels[i], "at": at} for i in known - set(before)]
            if new:
                connection.execute(insert_if_absent(self._engine, outcomes), new)
            # Of two reporters at the same time, one finds here what the other recorded.
            after = _found(connection, outcomes, outcomes.c.label, labels)
        return {i: _report(i, label, known, before, after) for i, label in labels.items()}


def _found(connection: Connection, table: Table, column: Column[object], ids: Labels) -> dict[str, object]:
    query = select(table.c.decision_id, column).where(table.c.decision_id.in_(ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _report(
    decision_id: str, label: int | None, known: set[str], before: Mapping[str, object], after: Mapping[str, object]
) -> Report:
    if decision_id not in known:
        return Report.UNKNOWN
    if after[decision_id] != label:
        return Report.CONFLICTING
    return Report.REPEATED if decision_id in before else Report.RECORDED
