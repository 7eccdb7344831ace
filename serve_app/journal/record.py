"""A decision as it is kept: what was answered, and from what it can be computed again."""

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any

import msgpack
import numpy as np

from serve_app.types import QUEUE, Action, Decision, Reason, Row, Status, TimeArray, VariantName

Record = dict[str, Any]
"""Values by the columns of the table `decisions`: the fields of a Decision, when it was made, and its inputs."""

_BUFFER = 8 * 2**10
"""Bytes, to begin with. By default MessagePack asks the system for a quarter of a megabyte each time."""
_DECISION = tuple(field.name for field in fields(Decision) if field.name != "seen")


def _packed(document: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(document, datetime=True, buf_size=_BUFFER)
    return packed


def pack(decision: Decision, row: Row, at: datetime) -> bytes:
    """Return the record of a decision that was made `at` a time, UTC."""
    return _packed({**_record(decision, at), "inputs": pack_row(row)})


def pack_shadow(scored: Decision, at: datetime) -> bytes:
    """Return the record of what the other variant would have decided: that of a decision without inputs."""
    return _packed(_record(scored, at))


def is_shadow(record: Record) -> bool:
    """Whether a record is that of a shadow."""
    return "inputs" not in record


def _record(decision: Decision, at: datetime) -> Record:
    record = {name: getattr(decision, name) for name in _DECISION}
    return {**record, "timings_ms": dict(decision.timings_ms), "at": at}


def unpack(packed: bytes) -> Record:
    """Return the record again."""
    record: Record = msgpack.unpackb(packed, timestamp=3)
    return record


def stages_ms(timings_ms: Mapping[str, float]) -> float:
    """Return how long the stages took, without the wait before them: a shadow never waits as a request does."""
    return sum(took for stage, took in timings_ms.items() if stage != QUEUE)


def decision_of(record: Record) -> Decision:
    """Return the decision of a record."""
    return Decision(
        **{name: record[name] for name in _DECISION}
        | {
            "status": Status(record["status"]),
            "reason": record["reason"] and Reason(record["reason"]),
            "action": Action(record["action"]),
            "variant": VariantName(record["variant"]),
        }
    )


def pack_row(row: Row) -> bytes:
    """Return a row as bytes, every number as it is."""
    values = row.features if row.bars is None else row.bars
    assert values is not None  # noqa: S101  a row has the one or the other
    times = None if row.timestamps is None else row.timestamps.astype("datetime64[us]").tobytes()
    return _packed(
        {
            "asset_id": row.asset_id,
            "is_long": row.is_long,
            "held": row.held,
            "shape": values.shape,
            "values": values.astype("<f8").tobytes(),
            "timestamps": times,
        }
    )


def unpack_row(packed: bytes) -> Row:
    """Return the row again: bars when it has times, features otherwise."""
    kept: Mapping[str, Any] = msgpack.unpackb(packed)
    values = np.frombuffer(kept["values"], "<f8").reshape(kept["shape"])
    state = {"asset_id": kept["asset_id"], "is_long": kept["is_long"], "held": kept["held"]}
    if kept["timestamps"] is None:
        return Row(features=values, **state)
    times: TimeArray = np.frombuffer(kept["timestamps"], "datetime64[us]")
    return Row(bars=values, timestamps=times, **state)
