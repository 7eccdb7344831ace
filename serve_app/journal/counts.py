"""What a monitor that begins takes from the journal: how many decisions there are of each kind, and which came true."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import Engine, func, select

from serve_app.journal.schema import decisions, outcomes
from serve_app.journal.store import answering
from serve_app.types import Action, Kind, Matured, Reason, VariantName

MATURED = 10_000
"""Outcomes that are looked at: the latest."""
_SNAPSHOT = {"sqlite": "BEGIN", "postgresql": "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"}
"""Lets what follows in a transaction see one moment: Python's sqlite3 begins none for a SELECT."""
_KIND = (
    decisions.c.variant,
    decisions.c.model_version,
    decisions.c.action,
    decisions.c.reason,
    decisions.c.batch_size,
)


class Counted(NamedTuple):
    """Decisions at one moment."""

    kinds: Mapping[Kind, int]
    latest: Sequence[str]
    """Ids of the newest, oldest first."""


def count(engine: Engine, latest: int) -> Counted:
    """Count all decisions, and return the ids of the `latest`. Raises JournalUnavailable."""
    newest = select(decisions.c.decision_id).order_by(decisions.c.at.desc()).limit(latest)
    # One moment for both: otherwise a decision that comes between them would be in one and not in the other.
    with answering(), engine.begin() as connection:
        connection.exec_driver_sql(_SNAPSHOT[engine.dialect.name])
        rows = connection.execute(select(*_KIND, func.count()).group_by(*_KIND)).all()
        ids = connection.scalars(newest).all()
    return Counted({_kind(row): row[-1] for row in rows}, ids[::-1])


def _kind(row: Any) -> Kind:
    variant, version, action, reason, batch_size = row[:5]
    return Kind(VariantName(variant), version, Action(action), reason and Reason(reason), batch_size)


def matured(engine: Engine, latest: int = MATURED) -> dict[VariantName, Matured]:
    """Return what came of the predictions of each variant's bundle that answered last, by the time of the outcome.

    Of the `latest` outcomes of all. Those that nobody will ever know are left out. Raises JournalUnavailable.
    """
    made = decisions.c
    query = (
        select(
            made.variant,
            made.bundle_digest,
            made.model_version,
            made.at,
            made.symbol,
            made.timestamp,
            made.probability,
            outcomes.c.label,
        )
        .join(outcomes, outcomes.c.decision_id == made.decision_id)
        .where(outcomes.c.label.is_not(None), made.probability.is_not(None))
        .order_by(outcomes.c.at.desc(), made.at.desc())
        .limit(latest)
    )
    with answering(), engine.connect() as connection:
        rows = connection.execute(query).all()[::-1]
    newest: dict[str, Any] = {}
    for row in rows:
        if row.variant not in newest or row.at >= newest[row.variant].at:
            newest[row.variant] = row
    return {
        VariantName(variant): _of([row for row in rows if row[:2] == latest_row[:2]])
        for variant, latest_row in newest.items()
    }


def _of(rows: Sequence[Any]) -> Matured:
    times = [row.timestamp and row.timestamp.replace(tzinfo=None) for row in rows]
    return Matured(
        digest=rows[0].bundle_digest,
        model_version=rows[0].model_version,
        probabilities=np.array([row.probability for row in rows]),
        labels=np.array([row.label for row in rows], dtype=float),
        symbols=np.array([row.symbol for row in rows]),
        times=np.array(times, dtype="datetime64[us]"),
    )


def newest_outcome(engine: Engine) -> datetime | None:
    """Return when the latest outcome was reported, if any was. Raises JournalUnavailable."""
    with answering(), engine.connect() as connection:
        return connection.execute(select(func.max(outcomes.c.at))).scalar()
