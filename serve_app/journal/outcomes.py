"""What really happened after a decision, as whoever asked for it reports."""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Column, Connection, Engine, Table, select

from serve_app.journal.schema import decisions, outcomes
from serve_app.journal.store import answering, insert_if_absent


class Report(StrEnum):
    """What became of an outcome that was reported."""

    RECORDED = "recorded"
    REPEATED = "repeated"
    """The same was recorded before."""
    CONFLICTING = "conflicting"
    """Another one was recorded before, and stays."""
    UNKNOWN = "unknown"
    """There is no such decision."""


class Outcomes:
    """One outcome a decision: the first that is reported."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def report(self, labels: Mapping[str, int], at: datetime) -> dict[str, Report]:
        """Record labels (0 or 1) by decision id, all in one transaction. Raises JournalUnavailable."""
        with answering(), self._engine.begin() as connection:
            known = set(_found(connection, decisions, decisions.c.decision_id, labels))
            before = _found(connection, outcomes, outcomes.c.label, labels)
            new = [{"decision_id": i, "label": labels[i], "at": at} for i in known - set(before)]
            if new:
                connection.execute(insert_if_absent(self._engine, outcomes), new)
            # Of two reporters at the same time, one finds here what the other recorded.
            after = _found(connection, outcomes, outcomes.c.label, labels)
        return {i: _report(i, label, known, before, after) for i, label in labels.items()}


def _found(connection: Connection, table: Table, column: Column[object], ids: Mapping[str, int]) -> dict[str, object]:
    query = select(table.c.decision_id, column).where(table.c.decision_id.in_(ids))
    return {row[0]: row[1] for row in connection.execute(query)}


def _report(
    decision_id: str, label: int, known: set[str], before: Mapping[str, object], after: Mapping[str, object]
) -> Report:
    if decision_id not in known:
        return Report.UNKNOWN
    if after[decision_id] != label:
        return Report.CONFLICTING
    return Report.REPEATED if decision_id in before else Report.RECORDED
