import tracemalloc
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serve_app.errors import (
    InvalidPosition,
    MalformedRequest,
    MissingColumns,
    PayloadTooLarge,
    ServeAppError,
    UnknownColumns,
    WrongType,
)
from serve_app.pipeline import Pipeline
from serve_app.schemas import Limits, Unreadable, parse_arrow
from serve_app.types import Bars, FeatureRows, Position, PositionStatus, SignalRequest
from tests.factories import arrow_stream, arrow_table, real_requests
from tests.sizes import size

LIMITS = Limits(max_body_bytes=1_000_000, max_bars=1000, max_batch_requests=4)
DAYS = [datetime(2013, 3, day, tzinfo=UTC) for day in (1, 4, 5)]
TIMES = pa.array(DAYS, pa.timestamp("us", "UTC"))


def features(_symbol: str) -> list[str]:
    return ["RSI_14", "close"]


def table_of(columns: Mapping[str, Any]) -> pa.Table:
    given = {"symbol": ["IBM", "IBM", "MSFT"], "timestamp": TIMES, "RSI_14": [50.0, 51.0, 52.0], "close": [1, 2, 3]}
    return pa.table({name: values for name, values in {**given, **columns}.items() if values is not None})


def parse(table: pa.Table, limits: Limits = LIMITS, **options: Any) -> list[SignalRequest | Unreadable]:
    return parse_arrow(arrow_stream(table, **options), limits, features)


def readable(requests: Sequence[SignalRequest | Unreadable]) -> list[SignalRequest]:
    assert all(isinstance(request, SignalRequest) for request in requests), requests
    return [request for request in requests if isinstance(request, SignalRequest)]


def test_a_table_of_features_is_one_request_for_each_run_of_a_symbol() -> None:
    one, two = readable(parse(table_of({})))
    assert (one.symbol, two.symbol) == ("IBM", "MSFT")
    assert isinstance(one.history, FeatureRows)
    assert one.history.columns == ("RSI_14", "close")
    np.testing.assert_array_equal(one.history.values, [[50.0, 1.0], [51.0, 2.0]])
    assert one.history.timestamp == DAYS[1]


def test_a_table_that_lacks_a_feature_holds_bars() -> None:
    one, two = readable(parse(table_of({"RSI_14": None, "volume": [1, None, 3]})))
    assert isinstance(one.history, Bars)
    assert isinstance(two.history, Bars)
    np.testing.assert_array_equal(one.history.columns["volume"], [1.0, np.nan])
    assert two.history.timestamp.tolist() == [DAYS[2].replace(tzinfo=None)]
    assert two.history.columns["close"].tolist() == [3.0]


def test_a_symbol_that_comes_again_is_another_request() -> None:
    requests = readable(parse(table_of({"symbol": ["IBM", "MSFT", "IBM"]})))
    assert [request.symbol for request in requests] == ["IBM", "MSFT", "IBM"]


def test_the_column_request_parts_what_the_symbol_does_not() -> None:
    requests = readable(parse(table_of({"symbol": ["IBM"] * 3, "request": [7, 7, 8]})))
    assert [len(request.history) for request in requests] == [2, 1]


def test_rows_of_two_symbols_in_one_request_are_refused_alone() -> None:
    refused, good = parse(table_of({"symbol": ["IBM", "MSFT", "MSFT"], "request": [1, 1, 2]}))
    assert isinstance(refused, Unreadable)
    assert isinstance(refused.error, MalformedRequest)
    assert refused.symbol == "IBM"
    assert isinstance(good, SignalRequest)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_a_request_may_span_record_batches_and_dictionaries(chunk: int) -> None:
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())):
        symbols = pa.array(["IBM", "IBM", "MSFT"]).cast(kind) if not pa.types.is_dictionary(kind) else None
        column = symbols if symbols is not None else pa.array(["IBM", "IBM", "MSFT"]).dictionary_encode().cast(kind)
        requests = readable(parse(table_of({"symbol": column}), chunk=chunk))
        assert [(request.symbol, len(request.history)) for request in requests] == [("IBM", 2), ("MSFT", 1)]


def test_a_dictionary_that_has_a_text_twice_means_one_symbol() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2]), pa.array(["IBM", "IBM", "MSFT"]))
    assert [len(request.history) for request in readable(parse(table_of({"symbol": column})))] == [2, 1]


def test_an_empty_table_has_no_requests() -> None:
    assert parse(table_of({}).slice(0, 0)) == []


def test_times_of_any_unit_and_zone_are_taken() -> None:
    tokyo = TIMES.cast(pa.timestamp("s", "UTC")).cast(pa.timestamp("s", "Asia/Tokyo"))
    one, _ = readable(parse(table_of({"timestamp": tokyo})))
    assert isinstance(one.history, FeatureRows)
    assert one.history.timestamp == DAYS[1]


def test_the_position_is_that_of_the_last_row() -> None:
    long = {"position_status": ["FLAT", "LONG", None], "time_in_position_bars": [None, 3, None]}
    one, two = readable(parse(table_of(long)))
    assert one.position == Position(PositionStatus.LONG, None, 3.0)
    assert two.position == Position(PositionStatus.FLAT)


def test_a_position_that_is_none_is_refused_alone() -> None:
    one, two = parse(table_of({"position_status": ["", "SHORT", "FLAT"]}))
    assert isinstance(one, Unreadable)
    assert isinstance(one.error, InvalidPosition)
    assert isinstance(two, SignalRequest)


@pytest.mark.parametrize(
    ("columns", "error", "says"),
    [
        ({"symbol": None}, MissingColumns, "no column symbol"),
        ({"symbol": [1, 1, 2]}, WrongType, "symbol must hold texts"),
        ({"symbol": ["IBM", None, "IBM"]}, WrongType, "symbol has a null in row 1"),
        ({"timestamp": TIMES.cast(pa.timestamp("us"))}, WrongType, "timestamps with a time zone"),
        ({"timestamp": pa.array([DAYS[0], None, DAYS[2]])}, WrongType, "timestamp has a null"),
        (
            {"timestamp": pa.array([-(2**62)] * 3).cast(pa.timestamp("us", "UTC"))},
            WrongType,
            "years 1 to 9999 in row 0",
        ),
        ({"close": ["1", "2", "3"]}, WrongType, "close must hold numbers, not string"),
        ({"close": [True, False, True]}, WrongType, "close must hold numbers, not bool"),
        ({"close": [[1.0], [], [2.0]]}, WrongType, "close must hold numbers, not list"),
        ({"request": [1, None, 2]}, WrongType, "request has a null"),
        ({"request": [0.5, 1, 2]}, WrongType, "request must hold whole numbers"),
        ({"a b": [1, 2, 3]}, UnknownColumns, "invalid column name"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(columns: dict[str, Any], error: type[ServeAppError], says: str) -> None:
    with pytest.raises(error, match=says):
        parse(table_of(columns))


def test_bars_without_times_are_refused_with_the_position_of_each() -> None:
    status = ["FLAT", "LONG", "FLAT"]
    one, two = parse(table_of({"RSI_14": None, "timestamp": None, "position_status": status}))
    assert isinstance(one, Unreadable)
    assert isinstance(two, Unreadable)
    assert isinstance(one.error, MissingColumns)
    assert "no column timestamp" in str(one.error)
    assert [one.position.status, two.position.status] == [PositionStatus.LONG, PositionStatus.FLAT]


def test_rows_are_told_apart_by_what_the_model_of_their_symbol_takes() -> None:
    lists = {"IBM": ["RSI_14", "close"], "MSFT": ["sentiment"]}
    one, two = readable(parse_arrow(arrow_stream(table_of({})), LIMITS, lists.__getitem__))
    assert isinstance(one.history, FeatureRows)
    assert isinstance(two.history, Bars)


def test_a_column_that_comes_twice_is_refused() -> None:
    table = table_of({})
    with pytest.raises(WrongType, match="a column twice"):
        parse(table.append_column("close", table.column("close")))


def test_too_many_requests_and_too_long_ones_are_refused() -> None:
    few = Limits(max_body_bytes=1_000_000, max_bars=1, max_batch_requests=2)
    one, two = parse(table_of({}), few)
    assert isinstance(one, Unreadable)
    assert isinstance(one.error, PayloadTooLarge)
    assert isinstance(two, SignalRequest)
    with pytest.raises(PayloadTooLarge, match="3 requests in one batch"):
        parse(table_of({"symbol": ["A", "B", "A"]}), few)
    with pytest.raises(PayloadTooLarge, match="more than the 10 bytes"):
        parse(table_of({}), Limits(max_body_bytes=10, max_bars=1, max_batch_requests=1))


@pytest.mark.parametrize("symbol", ["", "x" * 65])
def test_a_symbol_has_the_length_that_json_allows(symbol: str) -> None:
    one, two = parse(table_of({"symbol": [symbol, symbol, "IBM"]}))
    assert isinstance(one, Unreadable)
    assert isinstance(two, SignalRequest)


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("where", ["records", "dictionary"])
def test_compressed_buffers_are_refused_before_they_grow(codec: str, where: str) -> None:
    column = pa.array(["IBM"] * 3).dictionary_encode() if where == "dictionary" else ["IBM"] * 3
    with pytest.raises(MalformedRequest, match="without compression"):
        parse(table_of({"symbol": column}), compression=codec)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_a_time_that_overflows_microseconds_is_refused_and_never_another_time(unit: str) -> None:
    times = pa.array([2**62 - 1] * 3).cast(pa.timestamp(unit, "UTC"))
    if unit == "ns":
        one, _ = readable(parse(table_of({"timestamp": times})))
        assert isinstance(one.history, FeatureRows)
        assert one.history.timestamp == datetime.fromtimestamp(2**62 // 10**9, UTC).replace(microsecond=427_387)
        return
    with pytest.raises(WrongType, match="beyond the years"):
        parse(table_of({"timestamp": times}))


def test_one_long_text_that_many_rows_share_stays_one_text() -> None:
    n, long = 200, "x" * 20_000
    shared = pa.DictionaryArray.from_arrays(pa.array([0] * n), pa.array([long]))
    columns: dict[str, Any] = {"timestamp": pa.array([DAYS[0]] * n), "request": list(range(n)), "close": [1.0] * n}
    many = Limits(max_body_bytes=1_000_000, max_bars=1, max_batch_requests=n)
    for name in ("symbol", "position_status"):
        table = pa.table({"symbol": ["IBM"] * n, **columns, name: shared})
        tracemalloc.start()
        refused = parse_arrow(arrow_stream(table), many, features)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < n * len(long) / 4
        assert len(refused) == n
        for one in refused:
            assert isinstance(one, Unreadable)
            assert len(one.symbol or "") <= 64
            assert len(str(one.error)) < 200


@pytest.mark.parametrize("hours", [float("nan"), float("inf"), -1.0])
def test_a_time_in_position_that_json_cannot_say_is_refused_like_a_negative_one(
    pipeline: Pipeline, bars: Mapping[str, Bars], hours: float
) -> None:
    table = arrow_table(real_requests(bars, 1))
    table = table.append_column("position_status", pa.array(["LONG"] * len(table)))
    table = table.append_column("time_in_position_hours", pa.array([hours] * len(table)))
    [request] = readable(parse_arrow(arrow_stream(table), LIMITS, features))
    with pytest.raises(InvalidPosition):
        pipeline.row(request)


@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xff\xff\xff\x00\x00\x00\x00", b"ARROW1\0\0" * 20])
def test_what_is_no_stream_is_malformed_or_empty(body: bytes) -> None:
    with pytest.raises((MalformedRequest, MissingColumns)):
        parse_arrow(body, LIMITS, features)


@settings(max_examples=size("changed bytes per file"), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=4), st.booleans())
def test_a_damaged_stream_is_refused_or_read_and_nothing_else(changes: list[tuple[int, int]], cut: bool) -> None:
    symbols = pa.array(["IBM", "IBM", "MSFT"]).dictionary_encode()
    body = bytearray(arrow_stream(table_of({"symbol": symbols, "position_status": ["FLAT", None, "LONG"]})))
    for place, value in changes:
        body[place % len(body)] = value
    damaged = bytes(body[: changes[0][0] % len(body)] if cut else body)
    try:
        requests = parse_arrow(damaged, LIMITS, features)
    except ServeAppError:
        return
    assert all(isinstance(request, SignalRequest | Unreadable) for request in requests)


def test_bars_of_a_table_are_the_bars_of_json(bars: Mapping[str, Bars]) -> None:
    requests = real_requests(bars, 4)
    for one, other in zip(readable(parse(arrow_table(requests))), requests, strict=True):
        assert isinstance(one.history, Bars)
        assert isinstance(other.history, Bars)
        assert one.symbol == other.symbol
        np.testing.assert_array_equal(one.history.timestamp, other.history.timestamp)
        assert one.history.columns.keys() == other.history.columns.keys()
        for name, values in one.history.columns.items():
            np.testing.assert_array_equal(values, other.history.columns[name])
