"""Arrow IPC streams → signal requests: arrays end to end, no Python object a row.

The body is the long table that a quant has anyway, `symbol`, `timestamp` and a column for every number; consecutive
rows of one symbol are one request. pyarrow is imported when the first such body comes.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
from pydantic import ValidationError

from serve_app.errors import InvalidPosition, MalformedRequest, MissingColumns, ServeAppError, WrongType
from serve_app.schemas.bodies import MAX_SYMBOL, PositionBody
from serve_app.schemas.columns import check_names, shown
from serve_app.schemas.decode import TIMESTAMP, Limits, check_body, check_count, check_length, position_of
from serve_app.types import FLAT, Bars, FeatureRows, FloatArray, Position, SignalRequest, TimeArray

STREAM = "application/vnd.apache.arrow.stream"
SYMBOL, REQUEST = "symbol", "request"
POSITION = {
    "position_status": "status",
    "time_in_position_hours": "time_in_position_hours",
    "time_in_position_bars": "time_in_position_bars",
}
"""Columns that hold the position of a request in its last row → what JSON calls it."""

# Slots of the flatbuffers of the IPC format (Message.fbs): where a message says that its buffers are compressed.
_HEADER_TYPE, _HEADER, _DICTIONARY_DATA, _COMPRESSION = 6, 8, 6, 10
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A request of a table that cannot be one; the others can."""

    error: ServeAppError
    symbol: str | None


def parse_arrow(body: bytes, limits: Limits, feature_list: Collection[str]) -> list[SignalRequest | Unreadable]:
    """Return the requests in a body of `POST /v1/signals:batch`, in the order of their rows.

    They are features when the table has every column of `feature_list`, else bars. Raises a 4xx of `serve_app.errors`
    for what is wrong with the table as a whole.
    """
    check_body(body, limits)
    table = _Table(_read(body))
    check_count(len(table.starts), limits)
    history = table.features if set(feature_list) <= table.numbers.keys() else table.bars()
    return [table.request(where, history, limits) for where in table.slices()]


def _read(body: bytes) -> Any:
    """Return a pyarrow Table whose every buffer lies within the body."""
    import pyarrow as pa  # noqa: PLC0415  0.2 s, and most clients send JSON

    try:
        if any(map(_is_compressed, _messages(body))):
            raise MalformedRequest("the Arrow stream is compressed; write it without compression")
        with pa.ipc.open_stream(body) as reader:
            _check_columns(reader.schema)
            batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
        return pa.Table.from_batches(batches, reader.schema).unify_dictionaries().combine_chunks()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise MalformedRequest(f"the body is not an Arrow IPC stream: {error!s:.200}; see /docs") from error


def _messages(body: bytes) -> Iterator[bytes]:
    import pyarrow as pa  # noqa: PLC0415

    for message in pa.ipc.MessageReader.open_stream(body):
        yield message.metadata.to_pybytes()


def _is_compressed(metadata: bytes) -> bool:
    """Read the one field that pyarrow obeys without telling: 8 MB of body could grow to 80 GB."""
    from flatbuffers.table import Table  # noqa: PLC0415

    def within(table: Any, slot: int) -> Any:
        offset = table.Offset(slot)
        return Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None

    message = Table(metadata, int.from_bytes(metadata[:4], "little"))
    kind_at = message.Offset(_HEADER_TYPE)
    kind = metadata[message.Pos + kind_at] if kind_at else 0
    header = within(message, _HEADER)
    if kind == _DICTIONARY_BATCH and header is not None:
        header = within(header, _DICTIONARY_DATA)
    return kind in {_DICTIONARY_BATCH, _RECORD_BATCH} and header is not None and bool(header.Offset(_COMPRESSION))


def _check_columns(schema: Any) -> None:
    """Refuse every type but texts, times and numbers, by the place that a column has."""
    import pyarrow.types as is_  # noqa: PLC0415

    if len(set(schema.names)) < len(schema.names):
        raise WrongType("the table has a column twice; name each column once")
    check_names(schema.names)
    if SYMBOL not in schema.names:
        raise MissingColumns(f"the table has no column {SYMBOL}", missing=[SYMBOL])
    for field in schema:
        kind = field.type
        value = kind.value_type if is_.is_dictionary(kind) else kind
        is_text = is_.is_string(value) or is_.is_large_string(value)
        if field.name in {SYMBOL, "position_status"}:
            _require(is_text, field, "texts")
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

    def __init__(self, table: Any) -> None:
        self._n = table.num_rows
        self._columns = {name: table.column(name) for name in table.column_names}
        self._codes, self._symbols = self._texts(SYMBOL)
        if (self._codes < 0).any():
            raise WrongType(f"the column {SYMBOL} has a null in row {int(np.argmin(self._codes))}")
        request = self._integers(REQUEST) if REQUEST in self._columns else self._codes
        self.starts = np.flatnonzero(np.diff(request, prepend=request[:1] - 1)) if self._n else np.array([], np.int64)
        self._times = self._timestamps()
        named = {SYMBOL, REQUEST, TIMESTAMP, *POSITION}
        self.numbers = {name: self._numbers(name) for name in self._columns if name not in named}
        self._positions = self._position_columns()

    def slices(self) -> list[slice]:
        """Return the rows of each request."""
        ends = [*self.starts[1:].tolist(), self._n]
        return [slice(start, end) for start, end in zip(self.starts.tolist(), ends, strict=False)]

    @property
    def features(self) -> "_FeatureTable":
        """The numbers as rows of features."""
        return _FeatureTable(tuple(self.numbers), np.stack(list(self.numbers.values()), axis=-1), self._times)

    def bars(self) -> Bars:
        """Return the whole table as bars. Raises MissingColumns, WrongType."""
        if self._times is None:
            raise MissingColumns(f"the table has no column {TIMESTAMP}; every bar needs its time", missing=[TIMESTAMP])
        return Bars(self._times, self.numbers)

    def request(self, where: slice, history: "Bars | _FeatureTable", limits: Limits) -> SignalRequest | Unreadable:
        """Return the request in some rows."""
        symbol = self._symbols[self._codes[where.start]]
        try:
            check_length(where.stop - where.start, limits)
            if (self._codes[where] != self._codes[where.start]).any():
                raise MalformedRequest(f"a request has rows of several symbols, the first of {shown(symbol)}")
            if not 1 <= len(symbol) <= MAX_SYMBOL:
                raise MalformedRequest(f"a symbol has 1 to {MAX_SYMBOL} characters, not {len(symbol)}")
            return SignalRequest(symbol, history.cut(where), self._position(where.stop - 1))
        except ServeAppError as error:
            return Unreadable(error, symbol)

    def _texts(self, name: str) -> tuple[Any, list[str]]:
        """Return a code for each row, -1 for a null, and the texts that the codes stand for."""
        import pyarrow as pa  # noqa: PLC0415

        chunks = self._columns[name]
        encoded = chunks if pa.types.is_dictionary(chunks.type) else chunks.dictionary_encode()
        whole = encoded.combine_chunks()
        if not len(whole):
            return np.array([], np.int64), []
        whole = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
        texts = whole.dictionary.to_pylist()
        codes = whole.indices.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False)
        # Two codes may stand for one text, and a code for a null.
        first = {text: code for code, text in reversed(list(enumerate(texts)))}
        same = np.array([-1 if text is None else first[text] for text in texts] + [-1], np.int64)
        return same[codes], texts

    def _integers(self, name: str) -> Any:
        column = self._columns[name]
        if column.null_count:
            raise WrongType(f"the column {name} has a null")
        return column.to_numpy()

    def _numbers(self, name: str) -> FloatArray:
        import pyarrow as pa  # noqa: PLC0415

        values = self._columns[name].cast(pa.float64(), safe=False).to_numpy()
        return np.ascontiguousarray(values, np.float64)

    def _timestamps(self) -> TimeArray | None:
        import pyarrow as pa  # noqa: PLC0415

        if TIMESTAMP not in self._columns:
            return None
        column = self._columns[TIMESTAMP]
        if column.null_count:
            raise WrongType(f"the column {TIMESTAMP} has a null; every row needs its time")
        times: TimeArray = column.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64()).to_numpy().view("M8[us]")
        within = (times >= _FIRST) & (times <= _LAST)
        if not within.all():
            raise WrongType(f"the column {TIMESTAMP} has a time beyond the years 1 to 9999 in row {within.argmin()}")
        return times

    def _position_columns(self) -> Mapping[str, Mapping[int, Any]]:
        """Return, for each key of a position, its value by the number of a request's last row."""
        last = np.append(self.starts[1:], self._n) - 1 if self._n else self.starts
        given = {
            key: self._columns[name].take(last).to_pylist() for name, key in POSITION.items() if name in self._columns
        }
        return {key: dict(zip(last.tolist(), values, strict=True)) for key, values in given.items()}

    def _position(self, row: int) -> Position:
        given = {key: values[row] for key, values in self._positions.items() if values[row] is not None}
        if not given:
            return FLAT
        try:
            return position_of(PositionBody.model_validate(given))
        except ValidationError as error:
            raise InvalidPosition(f"the position in row {row} is not one: {error.errors()[0]['msg']}") from error


# Of Python's datetime; Arrow knows earlier and later ones.
_FIRST, _LAST = np.datetime64("0001-01-01"), np.datetime64("9999-12-31")


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
