"""Arrow IPC streams → signal requests: arrays end to end, no Python object a row.

The body is the long table that a quant has anyway, `symbol`, `timestamp` and a column for every number; consecutive
rows of one symbol are one request.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from flatbuffers.table import Table as FlatTable
from pydantic import ValidationError

from serve_app.errors import InvalidPosition, MalformedRequest, MissingColumns, ServeAppError, WrongType
from serve_app.schemas.bodies import MAX_SYMBOL, PositionBody
from serve_app.schemas.columns import FIRST_YEAR, check_names, shown
from serve_app.schemas.decode import TIMESTAMP, FeatureList, Limits, check_body, check_count, check_length, position_of
from serve_app.types import FLAT, Bars, FeatureRows, FloatArray, Position, SignalRequest, TimeArray

STREAM = "application/vnd.apache.arrow.stream"
SYMBOL, REQUEST, STATUS = "symbol", "request", "position_status"
POSITION = {STATUS: "status", **{name: name for name in ("time_in_position_hours", "time_in_position_bars")}}
"""Columns that hold the position of a request in its last row → what JSON calls it."""
_NAMED = {SYMBOL, REQUEST, TIMESTAMP, *POSITION}
_LAST_DAY = np.datetime64("9999-12-31")
"""Of Python's datetime; Arrow knows later ones."""

# Slots of the flatbuffers of the IPC format (Message.fbs): where a message says that its buffers are compressed.
_HEADER_TYPE, _HEADER, _DICTIONARY_DATA, _COMPRESSION = 6, 8, 6, 10
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request of a table that cannot be one; the others can."""

    error: ServeAppError
    symbol: str | None
    """None when it cannot be one."""
    position: Position = FLAT


def parse_arrow(body: bytes, limits: Limits, feature_list: FeatureList) -> list[SignalRequest | Unreadable]:
    """Return the requests in a body of `POST /v1/signals:batch`, in the order of their rows.

    A request is of features when the table has every column of its symbol's `feature_list`, else of bars. Raises a 4xx
    of `serve_app.errors` for what is wrong with the table as a whole.
    """
    check_body(body, limits)
    table = _Table(_read(body), feature_list)
    check_count(len(table), limits)
    return table.requests(limits)


def _read(body: bytes) -> Any:
    """Return a pyarrow Table whose every buffer lies within the body."""
    try:
        if any(_is_compressed(message.metadata.to_pybytes()) for message in pa.ipc.MessageReader.open_stream(body)):
            raise MalformedRequest("the Arrow stream is compressed; write it without compression")
        with pa.ipc.open_stream(body) as reader:
            _check_columns(reader.schema)
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
        return pa.Table.from_batches(batches, reader.schema).unify_dictionaries().combine_chunks()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise MalformedRequest(f"the body is not an Arrow IPC stream: {error!s:.200}; see /docs") from error


def _is_compressed(metadata: bytes) -> bool:
    """Read the one field that pyarrow obeys without telling: 8 MB of body could grow to 80 GB."""
    message = FlatTable(metadata, int.from_bytes(metadata[:4], "little"))
    kind_at = message.Offset(_HEADER_TYPE)
    kind = metadata[message.Pos + kind_at] if kind_at else 0
    header = _within(message, _HEADER)
    if kind == _DICTIONARY_BATCH and header is not None:
        header = _within(header, _DICTIONARY_DATA)
    return kind in {_DICTIONARY_BATCH, _RECORD_BATCH} and header is not None and bool(header.Offset(_COMPRESSION))


def _within(table: Any, slot: int) -> Any:
    offset = table.Offset(slot)
    return FlatTable(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _check_columns(schema: Any) -> None:
    """Refuse every type but texts, times and numbers, by the place that a column has."""
    if len(set(schema.names)) < len(schema.names):
        raise WrongType("the table has a column twice; name each column once")
    check_names(schema.names)
    if SYMBOL not in schema.names:
        raise MissingColumns(f"the table has no column {SYMBOL}", missing=[SYMBOL])
    is_ = pa.types
    for field in schema:
        kind = field.type
        value = kind.value_type if is_.is_dictionary(kind) else kind
        if field.name in {SYMBOL, STATUS}:
            _require(is_.is_string(value) or is_.is_large_string(value), field, "texts")
        elif field.name == TIMESTAMP:
            _require(is_.is_timestamp(kind) and kind.tz is not None, field, "timestamps with a time zone")
        elif field.name == REQUEST:
            _require(is_.is_integer(kind), field, "whole numbers")
        else:
            _require(is_.is_integer(kind) or is_.is_floating(kind), field, "numbers")


def _require(fits: bool, field: Any, wanted: str) -> None:
    if not fits:
        raise WrongType(f"the column {field.name} must hold {wanted}, not {field.type!s:.60}")


class _Table:
    """The columns of one body as numpy arrays, and where each request begins."""

    def __init__(self, table: Any, feature_list: FeatureList) -> None:
        self._feature_list = feature_list
        self._columns = {name: table.column(name) for name in table.column_names}
        self._codes, self._symbols = self._texts(SYMBOL)
        if (self._codes < 0).any():
            raise WrongType(f"the column {SYMBOL} has a null in row {int(np.argmin(self._codes))}")
        request = self._whole(REQUEST).to_numpy() if REQUEST in self._columns else self._codes
        self._starts = np.flatnonzero(np.diff(request, prepend=request[:1] - 1))
        self._ends = np.append(self._starts[1:], len(request))[: len(self._starts)]
        self._times = self._timestamps() if TIMESTAMP in self._columns else None
        self._values = {name: self._numbers(name) for name in self._columns if name not in _NAMED}

    def __len__(self) -> int:
        """How many requests it has."""
        return len(self._starts)

    @cached_property
    def _features(self) -> "_FeatureTable":
        """The whole table as rows of features."""
        return _FeatureTable(tuple(self._values), np.stack(list(self._values.values()), axis=-1), self._times)

    @cached_property
    def _bars(self) -> Bars:
        """The whole table as bars. Raises MissingColumns."""
        if self._times is None:
            raise MissingColumns(f"the table has no column {TIMESTAMP}; every bar needs its time", missing=[TIMESTAMP])
        return Bars(self._times, self._values)

    def _history(self, symbol: str) -> "Bars | _FeatureTable":
        """Return the whole table as what it holds of a symbol: another variant may take other features."""
        return self._features if set(self._feature_list(symbol)) <= self._values.keys() else self._bars

    def requests(self, limits: Limits) -> list[SignalRequest | Unreadable]:
        """Cut the table into its requests."""
        places = map(slice, self._starts.tolist(), self._ends.tolist())
        return [self._request(w, p, limits) for w, p in zip(places, self._positions(), strict=True)]

    def _request(self, where: slice, said: Mapping[str, Any], limits: Limits) -> SignalRequest | Unreadable:
        symbol = self._symbols[self._codes[where.start]]
        if not 1 <= len(symbol) <= MAX_SYMBOL:
            return Unreadable(MalformedRequest(f"a symbol has 1 to {MAX_SYMBOL} characters, not {len(symbol)}"), None)
        position = FLAT
        try:
            position = _position(said)
            check_length(where.stop - where.start, limits)
            if (self._codes[where] != self._codes[where.start]).any():
                raise MalformedRequest(f"a request has rows of several symbols, the first of {shown(symbol)}")
            return SignalRequest(symbol, self._history(symbol).cut(where), position)
        except ServeAppError as error:
            return Unreadable(error, symbol, position)

    def _positions(self) -> list[dict[str, Any]]:
        """Return what each request says of its position."""
        last = self._ends - 1
        said: dict[str, list[Any]] = {}
        if STATUS in self._columns:  # one text for all rows that have it, however long it is
            codes, texts = self._texts(STATUS)
            said[STATUS] = [texts[code] if code >= 0 else None for code in codes[last].tolist()]
        for name in POSITION.keys() & self._columns.keys() - {STATUS}:
            said[name] = self._columns[name].take(last).to_pylist()
        keys = [POSITION[name] for name in said]
        rows = zip(*said.values(), strict=True) if said else [()] * len(self)
        return [{key: value for key, value in zip(keys, row, strict=True) if value is not None} for row in rows]

    def _texts(self, name: str) -> tuple[Any, list[str]]:
        """Return a code for each row, -1 for a null, and the texts that the codes stand for."""
        column = self._columns[name]
        encoded = (column if pa.types.is_dictionary(column.type) else column.dictionary_encode()).combine_chunks()
        texts = encoded.dictionary.to_pylist()
        codes = encoded.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        # Two codes may stand for one text, and a code for a null.
        first = {text: code for code, text in reversed(list(enumerate(texts)))}
        same = np.array([-1 if text is None else first[text] for text in texts] + [-1], np.int64)
        return same[codes], texts

    def _whole(self, name: str) -> Any:
        column = self._columns[name]
        if column.null_count:
            raise WrongType(f"the column {name} has a null; every row needs its {name}")
        return column

    def _numbers(self, name: str) -> FloatArray:
        return np.ascontiguousarray(self._columns[name].cast(pa.float64(), safe=False).to_numpy())

    def _timestamps(self) -> TimeArray:
        column = self._whole(TIMESTAMP)
        times = column.cast(pa.int64()).to_numpy().view(f"M8[{column.type.unit}]")
        days = times.astype("M8[D]")  # of all units, the one in which nothing overflows
        within = (days >= FIRST_YEAR) & (days <= _LAST_DAY)
        if not within.all():
            raise WrongType(f"the column {TIMESTAMP} has a time beyond the years 1 to 9999 in row {within.argmin()}")
        in_us: TimeArray = times.astype("M8[us]")
        return in_us


def _position(said: Mapping[str, Any]) -> Position:
    if not said:
        return FLAT
    try:
        return position_of(PositionBody.model_validate(said))
    except ValidationError as error:
        raise InvalidPosition(f"the position is not one: {error.errors()[0]['msg']}") from error


@dataclass(frozen=True, slots=True)
class _FeatureTable:
    """Features of all requests of a table: values (N, F)."""

    columns: tuple[str, ...]
    values: FloatArray
    times: TimeArray | None

    def cut(self, where: slice) -> FeatureRows:
        """Return those of one request."""
        time: datetime | None = None if self.times is None else self.times[where.stop - 1].item().replace(tzinfo=UTC)
        return FeatureRows(self.columns, self.values[where], time)
