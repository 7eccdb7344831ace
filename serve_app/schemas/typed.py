"""The usual signal request, decoded in one pass: read by simdjson, straight into arrays, and typed by msgspec.

A request that is out of the ordinary in any way (a gap, rows of bars, another structure, something wrong) is not
decoded here: `decode` reads every form that is allowed, and says what is wrong with the rest. Whatever is decoded here,
it would have read the same; a test holds them against each other.
"""

from functools import lru_cache
from typing import Annotated, Any

import msgspec
import numpy as np
import simdjson

from serve_app.errors import ServeAppError
from serve_app.schemas.bodies import MAX_SYMBOL
from serve_app.schemas.columns import check_names, parse_time, parse_times
from serve_app.schemas.decode import TIMESTAMP, Limits, position_of
from serve_app.types import FLAT, Bars, FeatureRows, FloatArray, SignalRequest


class _Position(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    status: str = "FLAT"
    time_in_position_hours: float | None = None
    time_in_position_bars: float | None = None


class _Signal(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What is no number."""

    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SYMBOL)]
    position: _Position | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    requests: list[msgspec.Raw]


_BATCH = msgspec.json.Decoder(_Batch)
_BRACKET = ord("[")


class _Unusual(Exception):
    """For the other decoder."""


_UNUSUAL = (
    _Unusual,
    msgspec.ValidationError,
    ServeAppError,
    ValueError,
    RuntimeError,
    TypeError,
    LookupError,
    AttributeError,
)
"""The last five: a text is no JSON for simdjson, or there is a value of another kind, which has no such part."""


def decode_signal(body: bytes, limits: Limits) -> SignalRequest | None:
    """Return the request in a body of `POST /v1/signals`; None when it is not of the usual kind."""
    if len(body) > limits.max_body_bytes:
        return None
    try:
        # Of one byte in a text, numpy counts twice as fast as `bytes.count`.
        arrays = int(np.count_nonzero(np.frombuffer(body, np.uint8) == _BRACKET))
        return _signal(simdjson.Parser().parse(body), arrays, limits)
    except _UNUSUAL:
        return None


def _fields(document: simdjson.Object) -> dict[str, Any]:
    """Return its values: texts, numbers, and what simdjson knows of objects and arrays (its `items` makes lists)."""
    fields = {key: document[key] for key in document}
    if len(fields) < len(document):
        raise _Unusual  # a key is given twice: here the first of them counts, elsewhere the last
    return fields


def _signal(document: Any, arrays: int, limits: Limits) -> SignalRequest:
    """Read a document with so many arrays in it: more than a request has, and one is where a number should be."""
    fields = _fields(document)
    history = fields.pop("features", None), fields.pop("bars", None)
    if isinstance(given := fields.get("position"), simdjson.Object):
        fields["position"] = given.as_dict()
    signal = msgspec.convert(fields, _Signal)
    position = FLAT if signal.position is None else position_of(signal.position)
    match history:
        case simdjson.Object() as features, None:
            return SignalRequest(signal.symbol, _features(_fields(features), arrays, limits), position)
        case None, simdjson.Object() as bars:
            return SignalRequest(signal.symbol, _bars(_fields(bars), arrays, limits), position)
    raise _Unusual


def split_batch(body: bytes, limits: Limits) -> list[bytes] | None:
    """Return the bodies of the requests in a body of `POST /v1/signals:batch`; None when it has another structure."""
    if len(body) > limits.max_body_bytes:
        return None
    try:
        requests = _BATCH.decode(body).requests
    except msgspec.DecodeError:
        return None
    return [bytes(request) for request in requests] if len(requests) <= limits.max_batch_requests else None


def _array(numbers: simdjson.Array) -> FloatArray:
    """Return the numbers in an array, and in the arrays in it. Strictly: no text, no boolean, no null."""
    return np.frombuffer(numbers.as_buffer(of_type="d"))


@lru_cache(maxsize=64)
def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that can be columns. Cached: clients send the same ones all day."""
    check_names(names)
    if len(set(names)) < len(names):
        raise ValueError("a column is named twice")
    return names


def _features(parts: dict[str, Any], arrays: int, limits: Limits) -> FeatureRows:
    columns, rows, timestamp = _columns(tuple(parts.pop("columns"))), parts.pop("rows"), parts.pop(TIMESTAMP, None)
    if parts or arrays != len(rows) + 2 or len(rows) > limits.max_bars or set(map(len, rows)) != {len(columns)}:
        raise _Unusual
    time = None if timestamp is None else parse_time(timestamp, TIMESTAMP)
    return FeatureRows(columns, _array(rows).reshape(-1, len(columns)), time)


def _bars(columns: dict[str, Any], arrays: int, limits: Limits) -> Bars:
    check_names(columns)
    if arrays != len(columns):
        raise _Unusual
    times = parse_times(columns.pop(TIMESTAMP).as_list(), str)
    numbers = {name: _array(values) for name, values in columns.items()}
    if not 0 < len(times) <= limits.max_bars or any(len(values) != len(times) for values in numbers.values()):
        raise _Unusual
    return Bars(times, numbers)
