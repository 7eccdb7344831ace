"""How a variant does in an epoch: what it answered, abstained from, and how long its stages took."""

from typing import Any

import numpy as np
from sqlalchemy import Engine, Select, Table, select

from serve_app.journal.record import stages_ms
from serve_app.journal.schema import decisions, shadows
from serve_app.journal.store import answering
from serve_app.types import Status, VariantName, Vitals

LATEST = 2_000
"""What is looked at, of each table."""


def latest(table: Table, epoch: int, variant: VariantName) -> Select[Any]:
    """Return the query for status and times of what was decided last."""
    return (
        select(table.c.status, table.c.timings_ms)
        .where(table.c.epoch == epoch, table.c.variant == variant)
        .order_by(table.c.at.desc())
        .limit(LATEST)
    )


def vitals(engine: Engine, epoch: int, variant: VariantName) -> Vitals:
    """Return the vitals of the latest answers and shadow predictions. Raises JournalUnavailable."""
    rows: list[Any] = []
    with answering(), engine.connect() as connection:
        for table in (decisions, shadows):
            rows += connection.execute(latest(table, epoch, variant)).all()
    taken = [stages_ms(timings) for status, timings in rows if status == Status.OK]
    p95 = float(np.percentile(taken, 95)) if taken else None
    return Vitals(answered=len(taken), abstained=len(rows) - len(taken), p95_ms=p95)
