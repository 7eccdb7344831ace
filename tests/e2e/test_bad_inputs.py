"""Bad input gets the right 4xx, a message that one can act on, and harms nobody: the next good request is answered."""

import copy
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from serve_app.types import Bars
from tests.factories import every_form, window

Body = dict[str, Any]
Spoil = Callable[[Body], Any]


def put(*path: Any, value: Any) -> Spoil:
    """Spoil one place of a body."""

    def spoil(body: Body) -> None:
        for step in path[:-1]:
            body = body[step]
        body[path[-1]] = value

    return spoil


def drop(*path: Any) -> Spoil:
    """Remove one place of a body."""

    def spoil(body: Body) -> None:
        for step in path[:-1]:
            body = body[step]
        del body[path[-1]]

    return spoil


def column(name: str, change: Callable[[list[Any]], list[Any]]) -> Spoil:
    """Change one column of the bars."""

    def spoil(body: Body) -> None:
        body["bars"][name] = change(body["bars"][name])

    return spoil


def every_column(change: Callable[[list[Any]], list[Any]]) -> Spoil:
    """Change all columns of the bars."""

    def spoil(body: Body) -> None:
        body["bars"] = {name: change(values) for name, values in body["bars"].items()}

    return spoil


def swap_last_two(values: list[Any]) -> list[Any]:
    return [*values[:-2], values[-1], values[-2]]


def features(spoil: Spoil) -> Spoil:
    """Send features in place of bars, spoilt."""

    def swap(body: Body) -> None:
        body["features"] = body.pop("ready features")
        del body["bars"]
        spoil(body)

    return swap


def nan_share(share: float) -> Spoil:
    """Blank this share of the values of the window, its first row excepted."""

    def spoil(body: Body) -> None:
        rows = body["features"]["rows"]
        places = [(r, c) for r in range(1, len(rows)) for c in range(len(rows[0]))]
        for r, c in places[: round(share * len(rows) * len(rows[0]))]:
            rows[r][c] = None

    return spoil


LAST = 272
# name → (how to spoil a good body, status, code, what the message must say)
BAD: dict[str, tuple[Spoil, int, str, str]] = {
    "no symbol": (drop("symbol"), 400, "malformed", "symbol: Field required"),
    "symbol is a number": (put("symbol", value=7), 400, "malformed", "symbol"),
    "symbol is empty": (put("symbol", value=""), 400, "malformed", "symbol"),
    "neither bars nor features": (drop("bars"), 400, "malformed", "either bars or features"),
    "both bars and features": (put("features", value={"columns": [], "rows": []}), 400, "malformed", "not both"),
    "misspelt key": (put("postion", value={"status": "FLAT"}), 400, "malformed", "postion"),
    "unknown symbol": (put("symbol", value="FB"), 422, "unknown_symbol", "AAPL, GOOG, IBM, MSFT"),
    "bars are a text": (put("bars", value="AAPL.csv"), 422, "wrong_type", "bars"),
    "no bars at all": (put("bars", value=[]), 422, "missing_columns", "timestamp"),
    "rows with different columns": (
        put("bars", value=[{"timestamp": "2013-01-01T00:00:00Z", "open": 1.0}, {"timestamp": "2013-01-02T00:00:00Z"}]),
        422,
        "missing_columns",
        "bars[1] has other columns than bars[0]: missing ['open']",
    ),
    "no close": (drop("bars", "close"), 422, "missing_columns", "close"),
    "no timestamp": (drop("bars", "timestamp"), 422, "missing_columns", "timestamp"),
    "misspelt column": (put("bars", "vwpa", value=[1.0] * 273), 422, "unknown_columns", "vwpa"),
    "column name with code": (put("bars", "x; DROP TABLE", value=[1.0] * 273), 422, "unknown_columns", "letters"),
    "columns of different lengths": (column("close", lambda v: v[1:]), 422, "wrong_type", "different lengths"),
    "272 bars": (every_column(lambda v: v[1:]), 422, "too_few_bars", "272 bars given, 273 needed"),
    "10,001 bars": (every_column(lambda v: v[:1] * 10_001), 413, "too_large", "10001 rows"),
    "price is a text": (
        put("bars", "close", LAST, value="24.7"),
        422,
        "wrong_type",
        "bars.close[272] must be a number",
    ),
    "price is true": (put("bars", "open", 3, value=True), 422, "wrong_type", "bars.open[3]"),
    "price is missing": (put("bars", "high", 100, value=None), 422, "non_finite", "bars[100].high"),
    "price is an object": (put("bars", "high", 5, value={}), 422, "wrong_type", "bars.high[5]"),
    "price is zero": (put("bars", "low", LAST, value=0), 422, "invalid_bar", "prices must be > 0"),
    "price is negative": (put("bars", "low", LAST, value=-3.5), 422, "invalid_bar", "bars[272]"),
    "volume is negative": (put("bars", "volume", 9, value=-1), 422, "invalid_bar", "volume must be >= 0"),
    "high below low": (put("bars", "high", LAST, value=0.01), 422, "invalid_bar", "high must be >= low"),
    "open above high": (put("bars", "open", LAST, value=1e6), 422, "invalid_bar", "open must lie within"),
    "close below low": (put("bars", "close", LAST, value=0.01), 422, "invalid_bar", "close must lie within"),
    "bars newest first": (every_column(lambda v: v[::-1]), 422, "unsorted_timestamps", "oldest first"),
    "two bars swapped": (column("timestamp", swap_last_two), 422, "unsorted_timestamps", "bars[272]"),
    "one bar twice": (column("timestamp", lambda v: [*v[:-1], v[-2]]), 422, "duplicate_timestamps", "bars[272]"),
    "timestamp without zone": (put("bars", "timestamp", 0, value="2012-01-30"), 422, "wrong_type", "append Z"),
    "timestamp is a number": (put("bars", "timestamp", 0, value=1362096000), 422, "wrong_type", "ISO 8601"),
    "timestamp is nonsense": (put("bars", "timestamp", 7, value="yesterday"), 422, "wrong_type", "timestamp[7]"),
    "short position": (put("position", value={"status": "SHORT"}), 422, "invalid_position", "FLAT or LONG"),
    "long for how long": (put("position", value={"status": "LONG"}), 422, "invalid_position", "time_in_position"),
    "negative hours": (
        put("position", value={"status": "LONG", "time_in_position_hours": -1}),
        422,
        "invalid_position",
        "time_in_position_hours is -1",
    ),
    "hours are a text": (
        put("position", value={"status": "LONG", "time_in_position_hours": "9"}),
        422,
        "invalid_position",
        "time_in_position_hours",
    ),
    "misspelt position key": (put("position", value={"state": "LONG"}), 422, "invalid_position", "state"),
    "feature missing": (features(put("features", "columns", 11, value="RSI")), 422, "missing_columns", "RSI_14"),
    "feature row too short": (
        features(put("features", "rows", 3, value=[1.0])),
        422,
        "wrong_type",
        "features.rows[3] has 1 values for 23 columns",
    ),
    "23 rows of features": (features(drop("features", "rows", 0)), 422, "too_few_bars", "23 rows of features given"),
    "feature is a text": (features(put("features", "rows", 5, 2, value="n/a")), 422, "wrong_type", "rows[5].low"),
    "gap in the first row": (features(put("features", "rows", 0, 0, value=None)), 422, "too_many_missing", "first row"),
    "15 % missing": (features(nan_share(0.15)), 422, "too_many_missing", "15.0%"),
}


@pytest.fixture(scope="module")
def good(bars: dict[str, Bars]) -> Body:
    forms = every_form("MSFT", window(bars["MSFT"]))
    return {**forms["columns"][1], "ready features": forms["features"][1]["features"]}


def spoilt(good: Body, spoil: Spoil) -> Body:
    body = copy.deepcopy(good)
    spoil(body)
    body.pop("ready features", None)
    return body


def assert_refused(response: httpx2.Response, status: int, code: str, says: str) -> None:
    document = response.json()
    assert (response.status_code, document["code"]) == (status, code), document
    assert says in document["error"], document["error"]
    assert document["detail"]["fallback_action"] == "HOLD"
    assert document["request_id"] == response.headers["X-Request-Id"]
    assert len(document["error"]) < 600


def assert_still_answers(url: str, good: Body) -> None:
    body = {key: value for key, value in good.items() if key != "ready features"}
    answer = httpx2.post(url + "/v1/signals", json=body, timeout=30)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_and_the_next_good_one_answered(ab_test: str, good: Body, name: str) -> None:
    spoil, status, code, says = BAD[name]
    response = httpx2.post(ab_test + "/v1/signals", json=spoilt(good, spoil), timeout=30)
    assert_refused(response, status, code, says)
    assert_still_answers(ab_test, good)


@pytest.mark.parametrize(
    ("content", "status", "code", "says"),
    [
        (b"", 400, "malformed", "not JSON"),
        (b"{", 400, "malformed", "not JSON"),
        (b"[1, 2]", 400, "malformed", "must be a JSON object, not list"),
        (b"null", 400, "malformed", "must be a JSON object"),
        (b'{"symbol": "AAPL", "bars": {"close": [NaN]}}', 400, "malformed", "send null"),
        (b'{"symbol": "AAPL", "bars": {"close": [1e999]}}', 400, "malformed", "not JSON"),
        (b"\xff\xfe", 400, "malformed", "not JSON"),
        (b" " * (8 * 2**20 + 1), 413, "too_large", "more than the 8388608 bytes"),
    ],
    ids=lambda value: repr(value)[:30] if isinstance(value, bytes) else "",
)
def test_a_body_that_cannot_be_read_is_refused(
    ab_test: str, good: Body, content: bytes, status: int, code: str, says: str
) -> None:
    assert_refused(httpx2.post(ab_test + "/v1/signals", content=content, timeout=30), status, code, says)
    assert_still_answers(ab_test, good)


def test_a_batch_of_all_bad_requests_and_one_good_one_answers_the_good_one(ab_test: str, good: Body) -> None:
    small = {name: row for name, row in BAD.items() if row[1] != 413}
    bodies = [spoilt(good, spoil) for spoil, *_ in small.values()]
    bodies.append(spoilt(good, lambda _: None))
    response = httpx2.post(ab_test + "/v1/signals:batch", json={"requests": bodies}, timeout=60)
    assert response.status_code == 200
    results = response.json()["results"]
    assert [result["code"] for result in results[:-1]] == [code for _, _, code, _ in small.values()]
    assert results[-1]["status"] == "ok"


def test_a_refused_request_about_an_overdue_position_says_to_sell(ab_test: str, good: Body) -> None:
    overdue = put("position", value={"status": "LONG", "time_in_position_bars": 8})
    body = spoilt(good, lambda b: (overdue(b), b["bars"].pop("close")))
    detail = httpx2.post(ab_test + "/v1/signals", json=body, timeout=30).json()["detail"]
    assert detail["fallback_action"] == "SELL"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [("GET", "/v1/signals", 405, "method_not_allowed"), ("POST", "/v1/signal", 404, "not_found")],
)
def test_a_wrong_address_is_refused_in_the_same_shape(
    ab_test: str, method: str, path: str, status: int, code: str
) -> None:
    response = httpx2.request(method, ab_test + path, timeout=30)
    assert (response.status_code, response.json()["code"]) == (status, code)


def test_a_request_id_comes_back_once_and_a_bad_one_is_refused(ab_test: str, good: Body) -> None:
    body = json.dumps(spoilt(good, lambda _: None)).encode()
    answer = httpx2.post(ab_test + "/v1/signals", content=body, headers={"X-Request-Id": "order-17"}, timeout=30)
    assert [v for k, v in answer.headers.multi_items() if k.lower() == "x-request-id"] == ["order-17"]
    again = httpx2.post(ab_test + "/v1/signals", content=body, headers={"X-Request-Id": "order-17"}, timeout=30)
    assert again.json()["decision_id"] == answer.json()["decision_id"]
    refused = httpx2.post(ab_test + "/v1/signals", content=body, headers={"X-Request-Id": "x" * 129}, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (400, "malformed")


def test_every_refusal_is_counted_by_the_monitor(ab_test: str, good: Body) -> None:
    def counted() -> int:
        errors: dict[str, int] = httpx2.get(ab_test + "/v1/monitor", timeout=30).json()["errors"]
        return errors.get("unknown_symbol", 0)

    before = counted()
    httpx2.post(ab_test + "/v1/signals", json=spoilt(good, put("symbol", value="FB")), timeout=30)
    assert counted() == before + 1
