from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from serve_app.documentation import bars_as_columns, bars_as_rows
from serve_app.errors import (
    InvalidPosition,
    MalformedRequest,
    MissingColumns,
    PayloadTooLarge,
    ServeAppError,
    UnknownColumns,
    WrongType,
)
from serve_app.preprocess import TECH23
from serve_app.schemas import Limits, parse_batch, parse_json, parse_predict, parse_signal, what_can_be_read
from serve_app.types import FLAT, Bars, FeatureRows, Position, PositionStatus, SignalRequest
from tests.factories import features_of, flat_bars

LIMITS = Limits(max_body_bytes=10_000, max_bars=50, max_batch_requests=3)
BAR = {"timestamp": "2013-03-01T00:00:00Z", "open": 50, "high": 52.5, "low": 48, "close": 51, "volume": 1000}
LATER = {**BAR, "timestamp": "2013-03-04T00:00:00Z"}
FEATURES = {"columns": ["close", "RSI_14"], "rows": [[50, None], [51.5, 60]]}


def signal(**changes: Any) -> SignalRequest:
    return parse_signal({"symbol": "IBM", "bars": [BAR, LATER], **changes}, LIMITS)


def bars_of(bars: Any) -> Bars:
    history = signal(bars=bars).history
    assert isinstance(history, Bars)
    return history


def features_in(features: Any) -> FeatureRows:
    history = parse_signal({"symbol": "IBM", "features": features}, LIMITS).history
    assert isinstance(history, FeatureRows)
    return history


def same(one: Bars, other: Bars) -> None:
    np.testing.assert_array_equal(one.timestamp, other.timestamp)
    assert set(one.columns) == set(other.columns)
    for name, values in one.columns.items():
        np.testing.assert_array_equal(values, other.columns[name])


# JSON.


@pytest.mark.parametrize(
    "body", [b"", b"{", b"{'symbol': 1}", b'{"x": NaN}', b'{"x": Infinity}', b"\xff", b'"\\ud800"']
)
def test_a_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match=r"the body is not JSON: .*; NaN and Infinity are not JSON either"):
        parse_json(body, LIMITS)


def test_a_body_that_is_nested_too_deep_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="not JSON"):
        parse_json(b"[" * 5000, LIMITS)


def test_a_body_may_be_as_large_as_the_limit_and_no_larger() -> None:
    largest = b'"' + b"x" * 9_998 + b'"'
    assert parse_json(largest, LIMITS) == "x" * 9_998
    with pytest.raises(PayloadTooLarge, match="more than the 10000 bytes that are taken") as refusal:
        parse_json(largest + b" ", LIMITS)
    assert refusal.value.detail == {"max_body_bytes": 10_000}


@pytest.mark.parametrize(("document", "kind"), [([], "list"), ("x", "str"), (None, "NoneType"), (3, "int")])
def test_a_body_must_be_an_object(document: Any, kind: str) -> None:
    with pytest.raises(MalformedRequest, match=f"must be a JSON object, not {kind}"):
        parse_signal(document, LIMITS)


# Bars.


def test_rows_and_columns_are_the_same_bars() -> None:
    columns = {name: [BAR[name], LATER[name]] for name in BAR}
    same(bars_of([BAR, LATER]), bars_of(columns))


def test_bars_go_through_json_without_a_bit_changed(bars: dict[str, Bars]) -> None:
    history = bars["AAPL"].tail(50)
    for written in (bars_as_rows(history), bars_as_columns(history)):
        same(bars_of(orjson.loads(orjson.dumps(written))), history)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2013-03-01T00:00:00Z", "2013-03-01T00:00"),
        ("2013-03-01T00:00:00+00:00", "2013-03-01T00:00"),
        ("2013-03-01T01:30:00+01:30", "2013-03-01T00:00"),
        ("2013-02-28T19:00:00-05:00", "2013-03-01T00:00"),
        ("2013-03-01 00:00:00.000001Z", "2013-03-01T00:00:00.000001"),
    ],
)
def test_times_are_read_into_utc(text: str, time: str) -> None:
    assert bars_of([{**BAR, "timestamp": text}]).timestamp[0] == np.datetime64(time, "us")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("2013-03-01T00:00:00", "has no time zone: '2013-03-01T00:00:00'; append Z"),
        ("2013-03-01", "has no time zone"),
        ("yesterday", "is not ISO 8601: 'yesterday'"),
        ("2013-02-30T00:00:00Z", "is not ISO 8601"),
        ("", "is not ISO 8601"),
        (1362096000, "must be an ISO 8601 text .*, not 1362096000"),
        (None, "must be an ISO 8601 text"),
    ],
)
def test_a_time_that_cannot_be_read_is_named_by_its_cell(value: Any, message: str) -> None:
    with pytest.raises(WrongType, match=rf"bars\[1\]\.timestamp {message}"):
        bars_of([BAR, {**BAR, "timestamp": value}])
    columns = {name: [BAR[name], LATER[name]] for name in BAR}
    with pytest.raises(WrongType, match=rf"bars\.timestamp\[1\] {message}"):
        bars_of({**columns, "timestamp": [BAR["timestamp"], value]})


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00"])
def test_a_time_that_is_out_of_range_in_utc_is_of_the_wrong_type(text: str) -> None:
    with pytest.raises(WrongType, match=r"bars\[0\]\.timestamp"):
        bars_of([{**BAR, "timestamp": text}])


@pytest.mark.parametrize("value", ["51", True, [51], {"price": 51}, ""])
def test_what_is_not_a_number_is_named_by_its_cell(value: Any) -> None:
    with pytest.raises(WrongType, match=r"bars\[1\]\.close must be a number, not"):
        bars_of([BAR, {**LATER, "close": value}])


def test_null_is_a_missing_number_and_whole_numbers_are_numbers() -> None:
    bars = bars_of([BAR, {**LATER, "close": None, "volume": 10**18}])
    np.testing.assert_array_equal(bars.columns["close"], [51.0, np.nan])
    assert bars.columns["volume"].dtype == np.float64


def test_a_huge_cell_is_not_repeated_in_full() -> None:
    with pytest.raises(WrongType) as refusal:
        bars_of([{**BAR, "close": "9" * 5000}])
    assert len(str(refusal.value)) < 200


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([BAR, {k: v for k, v in LATER.items() if k != "close"}], MissingColumns, r"missing \['close'\], extra \[\]"),
        ([BAR, {**LATER, "vwap": 50}], UnknownColumns, r"missing \[\], extra \['vwap'\]"),
    ],
)
def test_every_row_has_the_columns_of_the_first(rows: Any, error: type[ServeAppError], message: str) -> None:
    with pytest.raises(error, match=rf"bars\[1\] has other columns than bars\[0\]: {message}") as refusal:
        bars_of(rows)
    assert refusal.value.detail == {"row": 1}


def test_columns_of_different_length_are_refused_with_their_lengths() -> None:
    with pytest.raises(WrongType, match=r"different lengths: \{'timestamp': 2, 'open': 1\}"):
        bars_of({"timestamp": [BAR["timestamp"], LATER["timestamp"]], "open": [1]})


@pytest.mark.parametrize("bars", [[], {}, [{}], {"open": [1]}, [{"open": 1}]])
def test_bars_without_times_are_refused(bars: Any) -> None:
    with pytest.raises(MissingColumns, match="bars has no timestamp"):
        bars_of(bars)


@pytest.mark.parametrize("name", ["close price", "clos\u00e9", "a" * 65, "", "__proto__ ", "x;drop", "a\nb"])
def test_a_name_that_no_column_can_have_is_refused(name: str) -> None:
    with pytest.raises(UnknownColumns, match=r"invalid column name .*; names have letters, digits and underscores"):
        bars_of([{**BAR, name: 1}])


@pytest.mark.parametrize("as_columns", [False, True])
def test_a_history_may_be_as_long_as_the_limit_and_no_longer(as_columns: bool) -> None:
    write: Callable[[Bars], Any] = bars_as_columns if as_columns else bars_as_rows
    assert len(bars_of(write(flat_bars(50)))) == 50
    with pytest.raises(PayloadTooLarge, match="51 rows of history, at most 50 are taken; send the latest") as refusal:
        bars_of(write(flat_bars(51)))
    assert refusal.value.detail == {"max_bars": 50}


# Features.


def test_features_are_read_in_the_clients_order_with_gaps() -> None:
    features = features_in(FEATURES)
    assert features.columns == ("close", "RSI_14")
    np.testing.assert_array_equal(features.values, [[50, np.nan], [51.5, 60]])
    assert features.timestamp is None


def test_features_take_a_time() -> None:
    time = features_in({**FEATURES, "timestamp": "2013-03-01T01:00:00+01:00"}).timestamp
    assert time is not None
    assert time.isoformat() == "2013-03-01T00:00:00+00:00"


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({**FEATURES, "rows": [[50, None], [51]]}, r"features\.rows\[1\] has 1 values for 2 columns"),
        ({**FEATURES, "rows": [[50, None], [51, "x"]]}, r"features\.rows\[1\]\.RSI_14 must be a number"),
        ({**FEATURES, "rows": [[50, True]]}, r"features\.rows\[0\]\.RSI_14 must be a number, not True"),
        ({**FEATURES, "columns": ["close", "close"]}, "names a column twice"),
        ({**FEATURES, "columns": "close"}, r"features\.columns"),
        ({**FEATURES, "rows": [{"close": 1}]}, r"features\.rows\[0\] must be a list"),
        ({**FEATURES, "timestamp": "2013-03-01"}, "timestamp has no time zone"),
        ({**FEATURES, "timestamp": 3}, r"features\.timestamp"),
        ({"columns": ["close"]}, r"features\.rows: Field required"),
        ([[1]], "features"),
    ],
)
def test_features_of_the_wrong_type_are_named(features: Any, message: str) -> None:
    with pytest.raises(WrongType, match=message):
        features_in(features)


def test_rows_of_features_are_limited_like_bars() -> None:
    with pytest.raises(PayloadTooLarge, match="51 rows"):
        features_in({**FEATURES, "rows": [[1, 2]] * 51})


def test_no_features_at_all_are_read_as_none() -> None:
    assert len(features_in({"columns": [], "rows": []})) == 0
    assert features_in({"columns": ["close"], "rows": []}).values.shape == (0, 1)


# The request around them.


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"symbol": "IBM"}, "either bars or features, and not both"),
        ({"symbol": "IBM", "bars": [BAR], "features": FEATURES}, "either bars or features, and not both"),
        ({"bars": [BAR]}, "symbol: Field required"),
        ({"symbol": "", "bars": [BAR]}, "symbol: .*at least 1 character"),
        ({"symbol": "X" * 65, "bars": [BAR]}, "symbol: .*at most 64 characters"),
        ({"symbol": 5, "bars": [BAR]}, "symbol: .*valid string"),
        ({"symbol": "IBM", "bars": [BAR], "lookback": 24}, "lookback: Extra inputs"),
    ],
)
def test_a_request_of_another_structure_is_malformed(document: Any, message: str) -> None:
    with pytest.raises(MalformedRequest, match=message):
        parse_signal(document, LIMITS)


@pytest.mark.parametrize("bars", ["x", 3, [3], {"open": 3}, True])
def test_bars_of_another_structure_are_of_the_wrong_type(bars: Any) -> None:
    with pytest.raises(WrongType, match="bars"):
        signal(bars=bars)


@pytest.mark.parametrize(
    ("document", "position"),
    [
        (None, FLAT),
        ({}, FLAT),
        ({"status": "FLAT"}, FLAT),
        ({"status": "LONG", "time_in_position_hours": 3}, Position(PositionStatus.LONG, 3.0)),
        ({"status": "LONG", "time_in_position_bars": 2.5}, Position(PositionStatus.LONG, None, 2.5)),
    ],
)
def test_positions_are_read(document: Any, position: Position) -> None:
    assert signal(position=document).position == position


@pytest.mark.parametrize(
    ("position", "message"),
    [
        ({"status": "SHORT"}, "position.status is 'SHORT'; it must be FLAT or LONG"),
        ({"status": "long"}, "it must be FLAT or LONG"),
        ({"status": None}, "position.status"),
        ({"status": "LONG", "time_in_position_hours": "3"}, "position.time_in_position_hours"),
        ({"status": "LONG", "time_in_position_hours": True}, "position.time_in_position_hours"),
        ({"status": "LONG", "hours": 3}, "position.hours: Extra inputs"),
        ("LONG", "position"),
    ],
)
def test_a_position_that_cannot_be_read_is_invalid(position: Any, message: str) -> None:
    with pytest.raises(InvalidPosition, match=message):
        signal(position=position)


# /predict.


def tech23(_symbol: str) -> tuple[str, ...]:
    return TECH23.features


def predict(rows: Any, **changes: Any) -> SignalRequest:
    return parse_predict({"symbol": "IBM", "historical_data": rows, **changes}, LIMITS, tech23)


def feature_rows(bars: Bars, **more: Any) -> list[dict[str, Any]]:
    features = features_of(bars, rows=2)
    return [{**dict(zip(features.columns, row, strict=True)), **more} for row in features.values.tolist()]


def test_raw_bars_are_read_as_bars() -> None:
    history = predict([BAR, LATER]).history
    assert isinstance(history, Bars)
    same(history, bars_of([BAR, LATER]))


def test_rows_that_carry_every_feature_are_read_as_features(bars: dict[str, Bars]) -> None:
    history = predict(feature_rows(bars["IBM"], timestamp="2013-03-01T00:00:00Z")).history
    assert isinstance(history, FeatureRows)
    assert history.columns == TECH23.features
    np.testing.assert_array_equal(history.values, features_of(bars["IBM"], rows=2).values)
    assert history.timestamp is not None


def test_rows_of_which_one_lacks_a_feature_are_read_as_bars(bars: dict[str, Bars]) -> None:
    rows = feature_rows(bars["IBM"], timestamp="2013-03-01T00:00:00Z")
    del rows[1]["RSI_14"]
    with pytest.raises(MissingColumns, match=r"historical_data\[1\] .* missing \['RSI_14'\]"):
        predict(rows)


def test_rows_are_held_against_what_the_model_of_their_symbol_takes() -> None:
    lists = {"IBM": ["close"], "MSFT": ["sentiment"]}
    document = {"historical_data": [BAR, LATER]}
    kinds = [type(parse_predict({"symbol": s, **document}, LIMITS, lists.__getitem__).history) for s in lists]
    assert kinds == [FeatureRows, Bars]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        ([], MissingColumns, "historical_data has no timestamp"),
        ("x", WrongType, "historical_data"),
        ([3], WrongType, r"historical_data\[0\] must be an object, not 3"),
        ([{**BAR, "close": "51"}], WrongType, r"historical_data\[0\]\.close"),
        ([BAR] * 51, PayloadTooLarge, "51 rows"),
    ],
)
def test_a_history_that_cannot_be_read_is_refused(rows: Any, error: type[ServeAppError], message: str) -> None:
    with pytest.raises(error, match=message):
        predict(rows)


def test_predict_takes_a_position_and_nothing_unknown() -> None:
    long = {"status": "LONG", "time_in_position_bars": 2}
    assert predict([BAR], position=long).position.status is PositionStatus.LONG
    with pytest.raises(MalformedRequest, match="lookback: Extra inputs"):
        predict([BAR], lookback=24)
    with pytest.raises(MalformedRequest, match="historical_data: Field required"):
        parse_predict({"symbol": "IBM"}, LIMITS, tech23)


def test_a_key_of_another_route_is_as_unknown_as_any() -> None:
    with pytest.raises(MalformedRequest, match="bars: Extra inputs"):
        predict([BAR], bars=[BAR])


# Batches, and what remains of the unusable.


def test_the_requests_of_a_batch_are_not_parsed_with_it() -> None:
    assert parse_batch({"requests": [1, "x", None]}, LIMITS) == [1, "x", None]
    assert parse_batch({"requests": []}, LIMITS) == []


def test_a_batch_may_be_as_long_as_the_limit_and_no_longer() -> None:
    with pytest.raises(PayloadTooLarge, match="4 requests in one batch, at most 3 are taken") as refusal:
        parse_batch({"requests": [None] * 4}, LIMITS)
    assert refusal.value.detail == {"max_batch_requests": 3}


@pytest.mark.parametrize("document", [{}, {"requests": {}}, {"requests": [], "more": 1}, []])
def test_a_batch_of_another_structure_is_malformed(document: Any) -> None:
    with pytest.raises(MalformedRequest):
        parse_batch(document, LIMITS)


LONG = {"status": "LONG", "time_in_position_hours": 9}


@pytest.mark.parametrize(
    ("document", "symbol", "position"),
    [
        ({"symbol": "IBM", "bars": 3, "position": LONG}, "IBM", Position(PositionStatus.LONG, 9.0)),
        ({"symbol": 65 * "A", "position": LONG}, None, Position(PositionStatus.LONG, 9.0)),
        ({"symbol": ""}, None, FLAT),
        ({"symbol": 3, "position": LONG}, None, Position(PositionStatus.LONG, 9.0)),
        ({"symbol": "IBM", "position": {"status": "SHORT"}}, "IBM", FLAT),
        ({"symbol": "IBM", "position": "LONG"}, "IBM", FLAT),
        ({"symbol": "IBM", "position": {**LONG, "typo": 1}}, "IBM", FLAT),
        ({"symbol": "IBM"}, "IBM", FLAT),
        ({}, None, FLAT),
        ([], None, FLAT),
        (None, None, FLAT),
        ("IBM", None, FLAT),
    ],
)
def test_what_can_be_read_of_an_unusable_body_is(document: Any, symbol: str | None, position: Position) -> None:
    assert what_can_be_read(document) == (symbol, position)


# Large bodies that are wrong all over: refused at the first fault, before pydantic describes every one.

MANY = {f"key{i}": i for i in range(1000)}


@pytest.mark.parametrize(
    "body",
    [MANY, {"symbol": "AAPL", "bars": [], "position": MANY}, {"symbol": "AAPL", "features": MANY}],
    ids=["body", "position", "features"],
)
def test_an_object_with_more_keys_than_any_of_ours_is_refused_by_their_number(body: dict[str, Any]) -> None:
    with pytest.raises(MalformedRequest, match=r"^an object of the body has 1000 keys; see /docs$"):
        parse_signal(body, LIMITS)


def test_a_position_with_too_many_keys_is_read_as_flat() -> None:
    assert what_can_be_read({"symbol": "AAPL", "position": {"status": "LONG", **MANY}}) == ("AAPL", FLAT)


def test_names_of_features_that_are_no_texts_are_refused_at_the_first() -> None:
    with pytest.raises(WrongType, match=r"^features\.columns\[1\] must be a text, not 2$"):
        parse_signal({"symbol": "AAPL", "features": {"columns": ["open", 2, 3, None], "rows": []}}, LIMITS)
