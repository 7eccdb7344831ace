from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx2
import numpy as np
import pytest

from serve_app.client import RequestRefused, SignalClient, signal_body
from serve_app.documentation import bars_as_columns
from serve_app.errors import UnusableRequest
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.schemas import Limits, error_document, parse_signal
from serve_app.types import Bars
from tests.factories import flat_bars, with_columns, with_value

LIMITS = Limits(10**7, 10_000, 100)
DECISION = {"symbol": "IBM", "recommended_action": "HOLD"}
BUSY = {"error": "busy", "code": "overloaded", "detail": {"fallback_action": "SELL"}, "request_id": "r"}

Handler = Callable[[httpx2.Request], httpx2.Response]


class Server:
    """Gives its answers one after the other, the last one again and again, and keeps what it was asked."""

    def __init__(self, *answers: httpx2.Response) -> None:
        self._answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def answer(status: int, document: Any = DECISION, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json=document, headers={k.replace("_", "-"): v for k, v in headers.items()})


def client_of(server: Handler, slept: list[float] | None = None, **options: Any) -> SignalClient:
    client = SignalClient("http://signals", sleep=(slept if slept is not None else []).append, **options)
    http = client._http
    client._http = httpx2.Client(base_url=http.base_url, headers=http.headers, transport=httpx2.MockTransport(server))
    http.close()
    return client


def call(server: Handler, slept: list[float] | None = None, **options: Any) -> dict[str, Any]:
    with client_of(server, slept, **options) as client:
        return client.signal({"symbol": "IBM"})


def test_a_decision_is_returned_as_it_came() -> None:
    server = Server(answer(200))
    slept: list[float] = []
    assert call(server, slept) == DECISION
    (request,) = server.asked
    assert (request.method, request.url.path) == ("POST", "/v1/signals")
    assert request.read() == b'{"symbol":"IBM"}'
    assert slept == []


def test_many_bodies_are_sent_in_one_call_and_answered_in_order() -> None:
    results = [{"symbol": "A"}, {"code": "unknown_symbol"}]
    server = Server(answer(200, {"results": results}))
    with client_of(server) as client:
        assert client.signals([{"symbol": "A"}, {"symbol": "B"}]) == results
    assert server.asked[0].url.path == "/v1/signals:batch"
    assert server.asked[0].read() == b'{"requests":[{"symbol":"A"},{"symbol":"B"}]}'


def test_the_monitor_is_asked_without_a_body() -> None:
    server = Server(answer(200, {"variants": {}}))
    with client_of(server) as client:
        assert client.monitor() == {"variants": {}}
    assert (server.asked[0].method, server.asked[0].read()) == ("GET", b"")


@pytest.mark.parametrize(("key", "header"), [("k", "Bearer k"), (None, None), ("", None)])
def test_a_key_is_sent_when_there_is_one(key: str | None, header: str | None) -> None:
    server = Server(answer(200))
    call(server, api_key=key)
    assert server.asked[0].headers.get("Authorization") == header


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_says_later_is_asked_again_when_it_said(status: int) -> None:
    later = answer(status, BUSY, Retry_After="3")
    server = Server(later, answer(status, BUSY, Retry_After="0.5"), answer(200))
    slept: list[float] = []
    assert call(server, slept) == DECISION
    assert slept == [3.0, 0.5]
    assert len({request.read() for request in server.asked}) == 1


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_service_that_keeps_saying_later_is_given_up(attempts: int) -> None:
    server = Server(answer(503, BUSY, Retry_After="2"))
    slept: list[float] = []
    with pytest.raises(RequestRefused, match="503 overloaded: busy"):
        call(server, slept, attempts=attempts)
    assert len(server.asked) == attempts
    assert slept == [2.0] * (attempts - 1)


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 422, 500, 502, 504])
def test_nothing_else_is_asked_again(status: int) -> None:
    server = Server(answer(status, BUSY, Retry_After="1"))
    slept: list[float] = []
    with pytest.raises(RequestRefused) as refused:
        call(server, slept)
    assert (len(server.asked), slept) == (1, [])
    assert refused.value.status == status


def test_a_refusal_has_what_the_service_said() -> None:
    document = error_document(UnusableRequest("no close", fallback_action="SELL"), "r1")
    with pytest.raises(RequestRefused, match="422 unusable: no close") as refused:
        call(Server(answer(422, document)))
    error = refused.value
    assert (error.status, error.code, error.detail, error.request_id) == (
        422,
        "unusable",
        {"fallback_action": "SELL"},
        "r1",
    )


def test_the_connections_are_closed_at_the_end() -> None:
    with client_of(Server(answer(200))) as client:
        client.signal({})
    assert client._http.is_closed


@pytest.mark.parametrize(("status", "text"), [(503, "<html>503 Service Unavailable"), (429, "queue full"), (500, "")])
def test_an_error_that_is_not_ours_is_a_refusal_too(status: int, text: str) -> None:
    with pytest.raises(RequestRefused, match=str(status)):
        call(Server(httpx2.Response(status, text=text)))


def test_a_date_to_come_back_is_understood() -> None:
    later = answer(503, BUSY, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    server = Server(later, answer(200))
    slept: list[float] = []
    assert call(server, slept) == DECISION
    assert (len(server.asked), slept) == (2, [0.0])  # that day is over


def test_a_date_that_is_still_to_come_is_waited_for() -> None:
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    slept: list[float] = []
    assert call(Server(answer(503, BUSY, Retry_After=then), answer(200)), slept) == DECISION
    assert slept == [pytest.approx(3600, abs=60)]


# The body of a request.


def sent(bars: Bars) -> Bars:
    history = parse_signal(signal_body("IBM", bars), LIMITS).history
    assert isinstance(history, Bars)
    return history


def test_the_service_reads_the_bars_that_the_client_has(bars: dict[str, Bars]) -> None:
    received = sent(bars["AAPL"])
    np.testing.assert_array_equal(received.timestamp, bars["AAPL"].timestamp)
    for name, values in bars["AAPL"].columns.items():
        np.testing.assert_array_equal(received.columns[name], values)


def test_a_position_is_sent_when_there_is_one() -> None:
    body = signal_body("IBM", flat_bars(1), {"status": "LONG", "time_in_position_bars": 3})
    assert body["position"] == {"status": "LONG", "time_in_position_bars": 3}
    assert set(signal_body("IBM", flat_bars(1))) == {"symbol", "bars"}


def test_an_optional_column_that_was_not_given_is_left_out() -> None:
    assert "vwap" not in bars_as_columns(with_columns(flat_bars(3), vwap=np.nan))


def test_a_column_with_a_gap_is_sent_with_its_gap() -> None:
    given = with_value(with_columns(flat_bars(4), **{SENTIMENT: 0.9}), SENTIMENT, 2, np.nan)
    np.testing.assert_array_equal(sent(given).columns[SENTIMENT], [0.9, 0.9, np.nan, 0.9])


def test_bars_within_one_second_stay_apart() -> None:
    bars = flat_bars(2)
    times = bars.timestamp[0] + np.array([0, 250_000], dtype="timedelta64[us]")
    np.testing.assert_array_equal(sent(Bars(times, bars.columns)).timestamp, times)
