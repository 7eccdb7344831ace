"""Request bodies → `SignalRequest`. No object per bar, no DataFrame: columns of numbers."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol, TypeVar

import numpy as np
import orjson
from pydantic import BaseModel, ValidationError

from serve_app.errors import (
    InvalidPosition,
    MalformedRequest,
    MissingColumns,
    PayloadTooLarge,
    ServeAppError,
    WrongType,
)
from serve_app.schemas.bodies import MAX_SYMBOL, BatchBody, FeaturesBody, PositionBody, PredictBody, SignalBody
from serve_app.schemas.columns import (
    check_kind,
    check_names,
    columns_of_rows,
    parse_numbers,
    parse_time,
    parse_times,
    shown,
)
from serve_app.types import FLAT, Bars, FeatureRows, Position, PositionStatus, SignalRequest

TIMESTAMP = "timestamp"

_STATUSES = frozenset(PositionStatus)
_STRUCTURAL = {"missing", "extra_forbidden"}
_MAX_KEYS = 16
_SHOWN = 64
"""Characters of a client's key that a message repeats."""

BodyT = TypeVar("BodyT", bound=BaseModel)
CellOf = Callable[[str, int], str]
"""How the cell in a column and row is called in a message."""
FeatureList = Callable[[str], Collection[str]]
"""Returns the features of a symbol."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one call may bring."""

    max_body_bytes: int
    max_bars: int
    max_batch_requests: int


def check_body(body: bytes, limits: Limits) -> None:
    """Raise PayloadTooLarge for a body of more bytes than are taken."""
    if len(body) > limits.max_body_bytes:
        raise PayloadTooLarge(
            f"the body has more than the {limits.max_body_bytes} bytes that are taken; send less history or fewer"
            " requests at once",
            max_body_bytes=limits.max_body_bytes,
        )


def check_count(n: int, limits: Limits) -> None:
    """Raise PayloadTooLarge for more requests in one batch than are taken."""
    if n > limits.max_batch_requests:
        raise PayloadTooLarge(
            f"{n} requests in one batch, at most {limits.max_batch_requests} are taken; send several",
            max_batch_requests=limits.max_batch_requests,
        )


def parse_json(body: bytes, limits: Limits) -> Any:
    """Decode a body. Raises PayloadTooLarge or MalformedRequest."""
    check_body(body, limits)
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise MalformedRequest(
            f"the body is not JSON: {error}; NaN and Infinity are not JSON either, send null"
        ) from error


def structure(model: type[BodyT], document: Any) -> BodyT:
    """Read a document as a body. Raises MalformedRequest, or what a known key of a signal request deserves."""
    if not isinstance(document, dict):
        raise MalformedRequest(f"the body must be a JSON object, not {type(document).__name__}; see /docs")
    for part in (document, document.get("position"), document.get("features")):
        _check_keys(part)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        _refuse(error)


def _check_keys(part: Any) -> None:
    """Refuse objects with more keys than any of ours, before pydantic describes every one of them."""
    if isinstance(part, dict) and len(part) > _MAX_KEYS:
        raise MalformedRequest(f"an object of the body has {len(part)} keys; see /docs")


def _refuse(error: ValidationError) -> NoReturn:
    """Turn pydantic's findings into ours: what is within a known key is unusable, the rest malformed."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    problems = [f"{'.'.join(str(step)[:_SHOWN] for step in e['loc'])}: {e['msg']}" for e in found[:5]]
    message = f"{'; '.join(problems)}; see /docs"
    structural = any(len(e["loc"]) == 1 and e["type"] in _STRUCTURAL for e in found)
    within = {str(e["loc"][0]) for e in found}
    if within == {"position"} and not structural:
        raise InvalidPosition(message)
    if within <= {"features"} and not structural:
        raise WrongType(message)
    raise MalformedRequest(message)


def check_length(n: int, limits: Limits) -> None:
    """Raise PayloadTooLarge for more rows of one history than are taken."""
    if n > limits.max_bars:
        raise PayloadTooLarge(
            f"{n} rows of history, at most {limits.max_bars} are taken; send the latest", max_bars=limits.max_bars
        )


def _bars(columns: Mapping[str, list[Any]], key: str, cell: CellOf) -> Bars:
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise WrongType(f"the columns of {key} have different lengths: {lengths}; send one value a bar in each")
    if TIMESTAMP not in columns:
        raise MissingColumns(f"{key} has no {TIMESTAMP}; every bar needs its time", missing=[TIMESTAMP])
    numbers = {
        name: parse_numbers(values, lambda row, name=name: cell(name, row))  # type: ignore[misc]
        for name, values in columns.items()
        if name != TIMESTAMP
    }
    return Bars(parse_times(columns[TIMESTAMP], lambda row: cell(TIMESTAMP, row)), numbers)


def _bars_of_rows(rows: Any, key: str, limits: Limits) -> Bars:
    check_kind(rows, dict, key)
    check_length(len(rows), limits)
    return _bars(columns_of_rows(rows, key), key, lambda name, row: f"{key}[{row}].{name}")


def _bars_of_columns(columns: dict[str, Any], key: str, limits: Limits) -> Bars:
    check_names(columns)
    for name, values in columns.items():
        if not isinstance(values, list):
            raise WrongType(f"{key}.{name} must be a list with one value a bar, not {shown(values)}")
    check_length(max(map(len, columns.values()), default=0), limits)
    return _bars(columns, key, lambda name, row: f"{key}.{name}[{row}]")


def _features(columns: Mapping[str, list[Any]], timestamp: Any, cell: CellOf) -> FeatureRows:
    numbers = [
        parse_numbers(values, lambda row, name=name: cell(name, row))  # type: ignore[misc]
        for name, values in columns.items()
    ]
    time = None if timestamp is None else parse_time(timestamp, TIMESTAMP)
    return FeatureRows(tuple(columns), np.stack(numbers, axis=-1) if numbers else np.empty((0, 0)), time)


def _features_of_body(body: FeaturesBody, limits: Limits) -> FeatureRows:
    check_kind(body.columns, str, "features.columns")
    check_names(body.columns)
    check_kind(body.rows, list, "features.rows")
    check_length(len(body.rows), limits)
    if len(set(body.columns)) < len(body.columns):
        raise WrongType("features.columns names a column twice; name each column once")
    for i, row in enumerate(body.rows):
        if len(row) != len(body.columns):
            raise WrongType(f"features.rows[{i}] has {len(row)} values for {len(body.columns)} columns")
    columns = {name: [row[i] for row in body.rows] for i, name in enumerate(body.columns)}
    return _features(columns, body.timestamp, lambda name, row: f"features.rows[{row}].{name}")


class PositionFields(Protocol):
    """What a position is read from."""

    status: str
    time_in_position_hours: float | None
    time_in_position_bars: float | None


def position_of(body: PositionFields) -> Position:
    """Return the position that a body describes. Raises InvalidPosition."""
    if body.status not in _STATUSES:
        raise InvalidPosition(f"position.status is {shown(body.status)}; it must be {' or '.join(PositionStatus)}")
    return Position(PositionStatus(body.status), body.time_in_position_hours, body.time_in_position_bars)


def parse_signal(document: Any, limits: Limits) -> SignalRequest:
    """Turn one decoded body of `POST /v1/signals` into a request. Raises a 4xx of `serve_app.errors`."""
    body = structure(SignalBody, document)
    position = FLAT if body.position is None else position_of(body.position)
    if body.bars is not None and body.features is None:
        parse = _bars_of_columns if isinstance(body.bars, dict) else _bars_of_rows
        return SignalRequest(body.symbol, parse(body.bars, "bars", limits), position)
    if body.features is not None and body.bars is None:
        return SignalRequest(body.symbol, _features_of_body(body.features, limits), position)
    raise MalformedRequest("send either bars or features, and not both; see /docs")


def parse_predict(document: Any, limits: Limits, feature_list: FeatureList) -> SignalRequest:
    """Turn one decoded body of `POST /predict` into a request: features if every row has them all, else bars."""
    body = structure(PredictBody, document)
    rows, key = body.historical_data, "historical_data"
    position = FLAT if body.position is None else position_of(body.position)
    check_kind(rows, dict, key)
    features = set(feature_list(body.symbol))
    if not rows or not all(row.keys() >= features for row in rows):
        return SignalRequest(body.symbol, _bars_of_rows(rows, key, limits), position)
    check_length(len(rows), limits)
    columns = columns_of_rows(rows, key)
    timestamp = columns.pop(TIMESTAMP, [None])[-1]
    history = _features(columns, timestamp, lambda name, row: f"{key}[{row}].{name}")
    return SignalRequest(body.symbol, history, position)


def parse_batch(document: Any, limits: Limits) -> list[Any]:
    """Return the requests of `POST /v1/signals:batch`, each still to be parsed."""
    requests = structure(BatchBody, document).requests
    if not isinstance(requests, list):
        raise MalformedRequest(f"requests must be a list of signal requests, not {shown(requests)}; see /docs")
    check_count(len(requests), limits)
    return list(requests)


def what_can_be_read(document: Any) -> tuple[str | None, Position]:
    """Return symbol and position of a body that is otherwise unusable, for the action that needs no model."""
    fields = document if isinstance(document, dict) else {}
    symbol = fields.get("symbol")
    try:
        _check_keys(fields.get("position"))
        position = position_of(PositionBody.model_validate(fields.get("position") or {}))
    except (ValidationError, ServeAppError):
        position = FLAT
    # One that is too long names no symbol, and would be remembered by whoever looks up its variant.
    is_symbol = isinstance(symbol, str) and 1 <= len(symbol) <= MAX_SYMBOL
    return symbol if is_symbol else None, position
