"""How long decisions are kept, and how they leave for good: as Parquet, which DuckDB, pandas and Spark read."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy import (
    JSON,
    BigInteger,
    Double,
    Engine,
    Integer,
    LargeBinary,
    Select,
    Text,
    delete,
    func,
    select,
)

from serve_app.journal.schema import Instant, decisions, outcomes, shadows
from serve_app.journal.store import answering

_ROWS = 5_000
"""Rows that are in memory at once; a row of hourly bars has some 10 kB."""
_INSTANT = pa.timestamp("us", "UTC")
_ARROW: Mapping[type[Any], pa.DataType] = {
    Text: pa.string(),
    Instant: _INSTANT,
    Double: pa.float64(),
    Integer: pa.int64(),
    BigInteger: pa.int64(),
    JSON: pa.map_(pa.string(), pa.float64()),
    LargeBinary: pa.binary(),
}
SCHEMA = pa.schema(
    [
        *((column.name, _ARROW[type(column.type)]) for column in decisions.columns),
        ("label", pa.int64()),
        ("label_at", _INSTANT),
    ]
)
"""Of the file: the columns of `decisions`, and what came of each."""


def export(engine: Engine, path: Path, since: datetime | None = None, until: datetime | None = None) -> int:
    """Write decisions, and what came of them, to a Parquet file; return how many. Times count in `at`, `until` not in.

    The file appears whole or not at all. Raises JournalUnavailable and OSError.
    """
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with pq.ParquetWriter(unfinished, SCHEMA, compression="zstd") as file:
            n = sum(_write(file, rows) for rows in _chunks(engine, _query(since, until)))
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return n


def _query(since: datetime | None, until: datetime | None) -> Select[Any]:
    query: Select[Any] = select(decisions, outcomes.c.label, outcomes.c.at.label("label_at"))
    query = query.outerjoin(outcomes, outcomes.c.decision_id == decisions.c.decision_id)
    if since is not None:
        query = query.where(decisions.c.at >= since)
    if until is not None:
        query = query.where(decisions.c.at < until)
    return query.order_by(decisions.c.at, decisions.c.decision_id)


def _chunks(engine: Engine, query: Select[Any]) -> Iterator[Sequence[Mapping[str, Any]]]:
    with answering(), engine.connect() as connection:
        found = connection.execution_options(yield_per=_ROWS).execute(query).mappings()
        for rows in found.partitions(_ROWS):
            yield [dict(row) for row in rows]


def _write(file: pq.ParquetWriter, rows: Sequence[Mapping[str, Any]]) -> int:
    documents = [{**row, "timings_ms": list(row["timings_ms"].items())} for row in rows]
    file.write_table(pa.Table.from_pylist(documents, schema=SCHEMA))
    return len(documents)


def forget(engine: Engine, before: datetime) -> int:
    """Remove decisions that were made before a time, and what came of them; return how many. For good."""
    old = select(decisions.c.decision_id).where(decisions.c.at < before)
    with answering(), engine.begin() as connection:
        n = connection.scalar(select(func.count()).select_from(old.subquery())) or 0
        connection.execute(delete(outcomes).where(outcomes.c.decision_id.in_(old)))
        connection.execute(delete(shadows).where(shadows.c.decision_id.in_(old)))
        connection.execute(delete(decisions).where(decisions.c.at < before))
    return n
