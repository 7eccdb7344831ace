"""What both variants answered in some epochs, and what came of it."""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from sqlalchemy import Engine, select

from serve_app.journal.record import stages_ms
from serve_app.journal.schema import decisions, outcomes
from serve_app.journal.store import answering

_COLUMNS = (
    decisions.c.symbol,
    decisions.c.timestamp,
    decisions.c.epoch,
    decisions.c.variant,
    decisions.c.bundle_digest,
    decisions.c.status,
    decisions.c.reason,
    decisions.c.probability,
    decisions.c.timings_ms,
    outcomes.c.label,
    outcomes.c.at.label("reported"),
)

_AT_ONCE = 10_000
"""Rows that are held as objects."""


def answered(engine: Engine, epochs: Collection[int]) -> pd.DataFrame:
    """Return every decision of some epochs, in the order in which they were made. Raises JournalUnavailable.

    Columns: `symbol`, `timestamp` (of the bar, UTC, NaT where the client did not say), `epoch`, `variant`,
    `bundle_digest`, `status`, `reason`, `probability` (NaN of an abstention), `label` (NaN where it is not known),
    `reported` (whether an outcome was, be it that nobody will ever know it), `latency_ms` (of the stages).
    """
    query = (
        select(*_COLUMNS)
        .outerjoin(outcomes, outcomes.c.decision_id == decisions.c.decision_id)
        .where(decisions.c.epoch.in_(epochs))
        .order_by(decisions.c.at, decisions.c.decision_id)
    )
    with answering(), engine.connect().execution_options(yield_per=_AT_ONCE) as connection:
        frames = [_compact(rows) for rows in connection.execute(query).partitions()]
    return pd.concat(frames, ignore_index=True) if frames else _compact([])


def _compact(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    """Put rows into columns: as objects of Python they take twenty times the memory."""
    frame = pd.DataFrame(rows, columns=[column.name for column in _COLUMNS])
    latency = [stages_ms(timings) for timings in frame.pop("timings_ms")]
    texts = {name: frame[name].astype("str") for name in ("symbol", "variant", "bundle_digest", "status", "reason")}
    return frame.assign(
        **texts,
        timestamp=pd.to_datetime(frame["timestamp"], utc=True),
        epoch=frame["epoch"].astype(int),
        probability=frame["probability"].astype(float),
        label=frame["label"].astype(float),
        reported=frame["reported"].notna(),
        latency_ms=np.array(latency, dtype=float),
    )
