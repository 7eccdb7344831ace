import copy
import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serve_app.documentation import bars_as_columns, bars_as_rows
from serve_app.errors import ServeAppError
from serve_app.schemas import Limits, decode_signal, parse_json, parse_signal, split_batch
from serve_app.types import Bars, FeatureRows, SignalRequest
from tests.factories import features_of
from tests.sizes import size

LIMITS = Limits(max_body_bytes=100_000, max_bars=300, max_batch_requests=3)
FEATURES = {"columns": ["close", "RSI_14"], "rows": [[50, 1.5], [51.5, 60]], "timestamp": "2013-03-01T00:00:00Z"}
BARS = {
    "timestamp": ["2013-03-01T00:00:00Z", "2013-03-04T00:00:00Z"],
    "open": [50, 51.25],
    "volume": [1e6, 12345678901234567890],
}
POSITION = {"status": "LONG", "time_in_position_hours": 2}
BODIES: list[dict[str, Any]] = [
    {"symbol": "IBM", "features": FEATURES},
    {"symbol": "IBM", "features": FEATURES, "position": POSITION},
    {"symbol": "IBM", "bars": BARS},
    {"symbol": "IBM", "bars": BARS, "position": None, "features": None},
]
STRANGE: list[Any] = [
    None, True, 0, -1, 2**63, 2**64, 10**400, 1e300, "", "IBM", "1.5", "x" * 65, "ü" * 64, [], [[]], [1.5], {},
    {"a": 1},
    "2013-02-30T00:00:00Z", "2013-03-01", "2013-03-01T00:00:00+01:00", "0001-01-01T00:00:00Z", "2013-03-01T23:59:60Z",
    "2013-03-01T24:00:00Z", "NaT", [True, 1.0], [1.0, None], ["close", "close"], ["a b", "c"],
]  # fmt: skip


def equal(one: SignalRequest, other: SignalRequest) -> bool:
    """Whether two requests are the same, to the bit."""
    if (one.symbol, one.position, type(one.history)) != (other.symbol, other.position, type(other.history)):
        return False
    if isinstance(one.history, Bars):
        assert isinstance(other.history, Bars)
        columns = list(one.history.columns) == list(other.history.columns)
        times = one.history.timestamp.dtype == other.history.timestamp.dtype and np.array_equal(
            one.history.timestamp, other.history.timestamp
        )
        return (
            columns
            and times
            and all(np.array_equal(values, other.history.columns[name]) for name, values in one.history.columns.items())
        )
    assert isinstance(other.history, FeatureRows)
    return (one.history.columns, one.history.timestamp) == (other.history.columns, other.history.timestamp) and (
        np.array_equal(one.history.values, other.history.values)
    )


def read(body: bytes) -> SignalRequest | None:
    """What the decoder of every form makes of a body; None when it refuses."""
    try:
        return parse_signal(parse_json(body, LIMITS), LIMITS)
    except ServeAppError:
        return None


def agree(body: bytes) -> bool:
    """Check that what is decoded in one pass is what is read otherwise; tell whether it was decoded."""
    decoded, otherwise = decode_signal(body, LIMITS), read(body)
    if decoded is None:
        return False
    assert otherwise is not None, f"decoded although it is refused: {body!r}"
    assert equal(decoded, otherwise), body
    return True


@pytest.mark.parametrize("body", BODIES)
def test_the_usual_requests_are_decoded_in_one_pass(body: dict[str, Any]) -> None:
    assert agree(orjson.dumps(body))
    assert agree(orjson.dumps(body, option=orjson.OPT_INDENT_2))


def test_real_bars_and_their_features_are_usual(bars: dict[str, Bars]) -> None:
    for symbol, history in ((name, bars[name]) for name in ("AAPL", "IBM", "MSFT")):
        features = features_of(history.tail(290))
        body = {"columns": list(features.columns), "rows": features.values[-24:].tolist()}
        assert agree(orjson.dumps({"symbol": symbol, "bars": bars_as_columns(history.tail(290))}))
        assert agree(orjson.dumps({"symbol": symbol, "features": body}))


def test_rows_of_bars_and_gaps_are_left_to_the_other_decoder(bars: dict[str, Bars]) -> None:
    rows = orjson.dumps({"symbol": "IBM", "bars": bars_as_rows(bars["IBM"].tail(3))})
    gap = orjson.dumps({"symbol": "IBM", "features": {"columns": ["close"], "rows": [[1.0], [None]]}})
    for body in (rows, gap):
        assert read(body) is not None
        assert not agree(body)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, child in inner for place in places(child, (*path, key)))]


def changed(body: dict[str, Any], place: tuple[Any, ...], value: Any) -> Any:
    if not place:
        return value
    document = copy.deepcopy(body)
    target: Any = document
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    return document


@pytest.mark.parametrize("body", BODIES)
def test_nothing_strange_is_decoded_otherwise_anywhere_in_a_request(body: dict[str, Any]) -> None:
    decoded = 0
    for place in places(body):
        for value in STRANGE:
            decoded += agree(json.dumps(changed(body, place, value)).encode())
    assert decoded > 20, "hardly anything was compared"


@settings(max_examples=size("hypothesis examples"), deadline=None)
@given(st.sampled_from(BODIES), st.data())
def test_no_change_of_bytes_is_decoded_otherwise(body: dict[str, Any], data: st.DataObject) -> None:
    text = bytearray(orjson.dumps(body))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text) - 1))
        text[at : at + data.draw(st.integers(0, 2))] = data.draw(
            st.sampled_from([b"", b"0", b"-", b".", b"e", b'"', b",", b"]", b"[", b"\xff", b"\\ud800", b"null", b" "])
        )
    agree(bytes(text))


@pytest.mark.parametrize(
    "body",
    [
        b'{"symbol": "A", "symbol": "IBM", "features": {"columns": ["a"], "rows": [[1]]}}',
        b'{"symbol": "IBM", "features": {"columns": ["a"], "rows": [[2]], "rows": [[1]]}}',
        b'{"symbol": "IBM", "bars": {"timestamp": ["2013-03-01T00:00:00Z"], "open": [1], "open": [2]}}',
    ],
)
def test_a_key_given_twice_is_left_to_the_other_decoder(body: bytes) -> None:
    assert read(body) is not None
    assert not agree(body)


@pytest.mark.parametrize(
    "rows",
    ["[[1, [2]], [3, 4]]", "[[[1], [2]], [3, 4]]", "[[1, 2], [3, []]]", "[[1, 2], 3]", "[[1, 2], {}]", "{}"],
)
def test_numbers_within_arrays_of_their_own_are_no_row(rows: str) -> None:
    """For simdjson flattens whatever is in an array."""
    body = f'{{"symbol": "IBM", "features": {{"columns": ["a", "b"], "rows": {rows}}}}}'.encode()
    assert read(body) is None
    assert not agree(body)


@pytest.mark.parametrize("values", ["[[1], [2]]", "[1, [2]]", "[[1, 2]]", "[[], 1]", "1", "{}"])
def test_numbers_within_arrays_of_their_own_are_no_column(values: str) -> None:
    times = '["2013-03-01T00:00:00Z", "2013-03-04T00:00:00Z"]'
    body = f'{{"symbol": "IBM", "bars": {{"timestamp": {times}, "open": {values}}}}}'.encode()
    assert read(body) is None
    assert not agree(body)


def test_what_is_too_large_is_not_decoded() -> None:
    body = orjson.dumps(BODIES[0])
    assert decode_signal(body, Limits(len(body), 2, 1)) is not None
    assert decode_signal(body, Limits(len(body) - 1, 2, 1)) is None
    assert decode_signal(body, Limits(len(body), 1, 1)) is None


def test_a_batch_is_split_into_its_requests() -> None:
    parts = split_batch(orjson.dumps({"requests": BODIES[:3]}), LIMITS)
    assert parts is not None
    assert [orjson.loads(part) for part in parts] == BODIES[:3]


@pytest.mark.parametrize("document", [{}, {"requests": {}}, {"requests": [], "more": 1}, [], {"requests": [{}] * 4}])
def test_a_batch_of_another_structure_or_too_long_is_not_split(document: Any) -> None:
    assert split_batch(orjson.dumps(document), LIMITS) is None
