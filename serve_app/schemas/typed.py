"""The usual signal request, decoded in one pass: typed by msgspec, straight into arrays.

A request that is out of the ordinary in any way (a gap, rows of bars, another structure, something wrong) is not
decoded here: `decode` reads every form that is allowed, and says what is wrong with the rest. Whatever is decoded here,
it would have read the same; a test holds them against each other.
"""

from functools import lru_cache
from itertools import chain
from struct import error as StructError
from struct import pack
from typing import Annotated

import msgspec
import numpy as np

from serve_app.errors import ServeAppError
from serve_app.schemas.bodies import MAX_SYMBOL
from serve_app.schemas.columns import check_names, parse_time, parse_times
from serve_app.schemas.decode import TIMESTAMP, Limits, position_of
from serve_app.types import FLAT, Bars, FeatureRows, FloatArray, SignalRequest

Numbers = list[float]
"""Strictly: no text, no boolean, no null, nothing that float64 cannot hold."""


class _Position(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    status: str = "FLAT"
    time_in_position_hours: float | None = None
    time_in_position_bars: float | None = None


class _Features(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    columns: list[str]
    rows: list[Numbers]
    timestamp: str | None = None


class _Signal(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    symbol: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SYMBOL)]
    features: _Features | None = None
    bars: dict[str, msgspec.Raw] | None = None
    position: _Position | None = None


class _Batch(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    requests: list[msgspec.Raw]


_SIGNAL = msgspec.json.Decoder(_Signal)
_BATCH = msgspec.json.Decoder(_Batch)
_NUMBERS = msgspec.json.Decoder(Numbers)
_TEXTS = msgspec.json.Decoder(list[str])


def decode_signal(body: bytes | memoryview, limits: Limits) -> SignalRequest | None:
    """Return the request in a body of `POST /v1/signals`; None when it is not of the usual kind."""
    if len(body) > limits.max_body_bytes:
        return None
    try:
        signal = _SIGNAL.decode(body)
        position = FLAT if signal.position is None else position_of(signal.position)
        if signal.features is not None and signal.bars is None:
            return SignalRequest(signal.symbol, _features(signal.features, limits), position)
        if signal.bars is not None and signal.features is None:
            return SignalRequest(signal.symbol, _bars(signal.bars, limits), position)
    except (msgspec.DecodeError, ServeAppError, ValueError, StructError):
        return None
    return None


def split_batch(body: bytes, limits: Limits) -> list[bytes] | None:
    """Return the bodies of the requests in a body of `POST /v1/signals:batch`; None when it has another structure."""
    if len(body) > limits.max_body_bytes:
        return None
    try:
        requests = _BATCH.decode(body).requests
    except msgspec.DecodeError:
        return None
    return [bytes(request) for request in requests] if len(requests) <= limits.max_batch_requests else None


def _array(numbers: Numbers) -> FloatArray:
    # Half the time of np.array, which asks every element what it is.
    return np.frombuffer(pack(f"{len(numbers)}d", *numbers))


@lru_cache(maxsize=64)
def _columns(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return names that can be columns. Cached: clients send the same ones all day."""
    check_names(names)
    if len(set(names)) < len(names):
        raise ValueError("a column is named twice")
    return names


def _features(features: _Features, limits: Limits) -> FeatureRows:
    columns = _columns(tuple(features.columns))
    if set(map(len, features.rows)) != {len(columns)} or len(features.rows) > limits.max_bars:
        raise ValueError("ragged, empty or too long")
    time = None if features.timestamp is None else parse_time(features.timestamp, TIMESTAMP)
    values = _array(list(chain.from_iterable(features.rows))).reshape(-1, len(columns))
    return FeatureRows(columns, values, time)


def _bars(columns: dict[str, msgspec.Raw], limits: Limits) -> Bars:
    check_names(columns)
    times = parse_times(_TEXTS.decode(columns.pop(TIMESTAMP, b"[]")), str)
    numbers = {name: _array(_NUMBERS.decode(values)) for name, values in columns.items()}
    if not 0 < len(times) <= limits.max_bars or any(len(values) != len(times) for values in numbers.values()):
        raise ValueError("without times, ragged or too long")
    return Bars(times, numbers)
