import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any, cast

import orjson
import pytest
from starlette.testclient import TestClient

from serve_app.api import Call, Front, create_api, hash_key
from serve_app.api.responses import respond_error
from serve_app.config import RouterConfig, Topology
from serve_app.dashboard import Sources, feed
from serve_app.documentation import bars_as_columns, bars_as_rows, examples_of
from serve_app.errors import MonitorUnavailable, Overloaded, ServeAppError, TooManyViewers
from serve_app.identity import Identify, by_request
from serve_app.parity import golden_requests
from serve_app.pipeline import Pipeline
from serve_app.router import Assignment
from serve_app.schemas import STREAM
from serve_app.service import Lane, Refused, SignalService
from serve_app.types import Action, Bars, Decision, HoldingUnit, SignalRequest, VariantName
from tests.factories import (
    NEEDED,
    arrow_stream,
    arrow_table,
    documented,
    every_form,
    probability_of,
    real_requests,
    window,
)

CONFIG = RouterConfig(max_body_bytes=200_000, max_bars=400, max_batch_requests=4)
LONG = {"status": "LONG", "time_in_position_bars": 8}
ERROR_KEYS = {"error", "code", "detail", "request_id"}


class Recorder:
    """What the monitor would hear."""

    def __init__(self) -> None:
        self.heard: list[tuple[Decision | ServeAppError, float]] = []
        self.asked: list[SignalRequest] = []

    def record(self, call: Call) -> None:
        self.heard.extend((answer, call.latency_ms) for answer in call.answers)
        self.asked.extend(call.decided)


@pytest.fixture(scope="module")
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture(scope="module")
def service(pipeline: Pipeline) -> SignalService:
    return SignalService({VariantName.PRODUCTION: Lane(pipeline, pipeline.run)}, Assignment())


@pytest.fixture(scope="module")
def front(pipeline: Pipeline, service: SignalService, recorder: Recorder) -> Front:
    async def monitor() -> dict[str, Any]:
        return {"variants": {}}

    golden = golden_requests(pipeline.bundle.golden, pipeline.feature_set, HoldingUnit.BARS)
    return Front(
        service=service,
        config=CONFIG,
        examples=examples_of(golden),
        record=recorder.record,
        monitor=monitor,
    )


TICKS = count()


def client_of(front: Front) -> TestClient:
    """The API in this process, by a clock that ticks once a look."""
    return TestClient(create_api(front, lambda: float(next(TICKS))), raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(front: Front, service: SignalService) -> Iterator[TestClient]:
    with client_of(front) as http:
        assert http.portal is not None
        assert http.portal.call(service.prove)
        yield http


@pytest.fixture(scope="module")
def body(bars: dict[str, Bars]) -> dict[str, Any]:
    return {"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}


def error_of(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    document: dict[str, Any] = response.json()
    assert set(document) == ERROR_KEYS
    assert document["code"] == code
    assert document["error"]
    assert document["request_id"]
    return document


class Answering:
    """A service that answers everything in one way."""

    def __init__(self, answer: Refused | Exception, reasons: Mapping[str, str | None] | None = None) -> None:
        self._answer = answer
        self._reasons = dict(reasons or {})

    async def decide(self, _identify: Identify, requests: Sequence[Any]) -> list[Decision | Refused]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return [self._answer for _ in requests]

    def with_fallback(self, refused: Refused) -> Refused:
        return refused

    def feature_list(self, _symbol: str) -> Sequence[str]:
        return ()

    def readiness(self) -> dict[str, str | None]:
        return self._reasons


# Answers.


@pytest.mark.parametrize("symbol", ["AAPL", "IBM"])
@pytest.mark.parametrize("ago", [0, 100])
def test_every_form_of_a_question_gets_the_same_probability(
    client: TestClient, pipeline: Pipeline, bars: dict[str, Bars], symbol: str, ago: int
) -> None:
    history = window(bars[symbol], ago)
    row = pipeline.row(SignalRequest(symbol, history))
    assert client.portal is not None
    (outcome,) = client.portal.call(pipeline.run, [row])
    for form, (path, document) in every_form(symbol, history).items():
        response = client.post(path, json=document)
        assert response.status_code == 200, (form, response.text)
        assert probability_of(response.json()) == pytest.approx(outcome.probability, abs=1e-6), form


def test_a_decision_has_the_documented_shape(
    client: TestClient, body: dict[str, Any], bars: dict[str, Bars], pipeline: Pipeline
) -> None:
    response = client.post("/v1/signals", json=body, headers={"X-Request-Id": "abc"})
    document = response.json()
    assert document.pop("prediction_probability") == pytest.approx(0.5, abs=0.5)
    assert set(document.pop("timings_ms")) == {"preprocess", "model", "strategy"}
    assert document.pop("recommended_action") in {"BUY", "HOLD"}
    assert document == {
        "decision_id": by_request("abc")(0, SignalRequest("IBM", window(bars["IBM"]))),
        "symbol": "IBM",
        "timestamp": "2013-03-01T00:00:00Z",
        "status": "ok",
        "reason": None,
        "variant": "production",
        "model_version": "v1.0",
        "bundle_digest": pipeline.bundle.digest,
        "epoch": 1,
    }


def test_predict_answers_in_the_shape_of_older_clients(client: TestClient, bars: dict[str, Bars]) -> None:
    rows = bars_as_rows(window(bars["IBM"]))
    document = client.post("/predict", json={"symbol": "IBM", "historical_data": rows}).json()
    assert document.keys() >= {"prediction_probability", "recommended_action", "timestamp", "status"}
    assert document["status"] == "ok"
    assert document["timestamp"].endswith("Z")


def test_a_batch_is_answered_in_order_and_one_bad_request_fails_alone(
    client: TestClient, body: dict[str, Any], bars: dict[str, Bars]
) -> None:
    requests = [
        body,
        {"symbol": "FB", "bars": bars_as_columns(bars["FB"].tail(5)), "position": LONG},
        {**body, "bars": {**body["bars"], "close": ["x"] * NEEDED}, "position": LONG},
        {"symbol": "AAPL", "bars": bars_as_columns(window(bars["AAPL"]))},
    ]
    response = client.post("/v1/signals:batch", json={"requests": requests}, headers={"X-Request-Id": "abc"})
    assert response.status_code == 200
    first, unknown, wrong, last = response.json()["results"]
    alone = client.post("/v1/signals", json=body).json()
    assert first["prediction_probability"] == pytest.approx(alone["prediction_probability"], abs=1e-6)
    assert (unknown["code"], wrong["code"]) == ("unknown_symbol", "wrong_type")
    assert unknown["detail"]["fallback_action"] == wrong["detail"]["fallback_action"] == "SELL"
    assert unknown["request_id"] == "abc"
    assert (last["symbol"], last["status"], last["decision_id"]) == (
        "AAPL",
        "ok",
        by_request("abc")(3, SignalRequest("AAPL", window(bars["AAPL"]))),
    )


@pytest.mark.parametrize("junk", [None, 3, "x", [], {}, {"symbol": []}])
def test_junk_among_the_requests_of_a_batch_fails_alone(client: TestClient, body: dict[str, Any], junk: Any) -> None:
    results = client.post("/v1/signals:batch", json={"requests": [junk, body]}).json()["results"]
    assert results[0]["code"] == "malformed"
    assert results[0]["detail"] == {"fallback_action": "HOLD"}
    assert results[1]["status"] == "ok"


def test_an_arrow_stream_is_answered_as_the_same_requests_in_json(client: TestClient, bars: dict[str, Bars]) -> None:
    requests = [*real_requests(bars, 3), SignalRequest("FB", window(bars["IBM"]))]
    bodies = [
        {"symbol": request.symbol, "bars": bars_as_columns(cast("Bars", request.history))} for request in requests
    ]
    headers = {"X-Request-Id": "abc", "Content-Type": STREAM}
    stream = arrow_stream(arrow_table(requests))
    arrow = client.post("/v1/signals:batch", content=stream, headers=headers).json()["results"]
    json = client.post("/v1/signals:batch", json={"requests": bodies}, headers={"X-Request-Id": "abc"}).json()[
        "results"
    ]
    for one, other in zip(arrow, json, strict=True):
        one.pop("timings_ms", None), other.pop("timings_ms", None)
    assert arrow == json
    assert [result.get("code") for result in arrow] == [None, None, None, "unknown_symbol"]


def test_a_table_that_cannot_be_read_is_an_error_and_a_row_of_it_fails_alone(
    client: TestClient, bars: dict[str, Bars]
) -> None:
    headers = {"Content-Type": f"{STREAM}; charset=binary"}
    error_of(client.post("/v1/signals:batch", content=b"{}", headers=headers), 400, "malformed")
    mixed = arrow_table([SignalRequest("x" * 65, window(bars["IBM"])), *real_requests(bars, 1)])
    long, good = client.post("/v1/signals:batch", content=arrow_stream(mixed), headers=headers).json()["results"]
    assert long["code"] == "malformed"
    assert long["detail"]["fallback_action"] == "HOLD"
    assert good["status"] == "ok"


def test_an_empty_batch_has_no_results(client: TestClient) -> None:
    assert client.post("/v1/signals:batch", json={"requests": []}).json() == {"results": []}


def test_an_abstention_is_an_answer(front: Front, service: SignalService, pipeline: Pipeline, body: Any) -> None:
    unproven = SignalService(service._lanes, Assignment())
    response = client_of(replace(front, service=unproven)).post("/v1/signals", json={**body, "position": LONG})
    assert response.status_code == 200
    document = response.json()
    assert (document["status"], document["reason"]) == ("abstain", "model_unavailable")
    assert (document["prediction_probability"], document["recommended_action"]) == (None, "SELL")
    assert document["bundle_digest"] == pipeline.bundle.digest


# Documentation.


def test_the_examples_of_the_documentation_can_be_sent_as_they_stand(client: TestClient) -> None:
    examples = documented(client.get("/openapi.json").json())
    assert {path for path, _, _ in examples} == {"/v1/signals", "/v1/signals:batch", "/predict"}
    for path, name, example in examples:
        response = client.post(path, json=example)
        assert response.status_code == 200, (path, name, response.text)
        answers = response.json().get("results", [response.json()])
        assert {answer["status"] for answer in answers} == {"ok"}, (path, name)


def test_an_example_shows_a_position_that_is_sold_because_of_its_time(client: TestClient) -> None:
    example = next(
        value for _, name, value in documented(client.get("/openapi.json").json()) if name == "a position held for long"
    )
    assert client.post("/v1/signals", json=example).json()["recommended_action"] == "SELL"


def test_the_documentation_names_every_media_type_that_a_batch_may_have(client: TestClient) -> None:
    operation = client.get("/openapi.json").json()["paths"]["/v1/signals:batch"]["post"]
    assert set(operation["requestBody"]["content"]) == {"application/json", STREAM}


def test_the_schemas_that_the_documentation_refers_to_are_there(client: TestClient) -> None:
    text = client.get("/openapi.json").text
    document = orjson.loads(text)
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(document["components"]["schemas"])
    assert "SignalBody" in referred
    assert "securitySchemes" not in document["components"]


def test_the_documentation_needs_no_other_server(client: TestClient) -> None:
    page = client.get("/docs")
    assert page.status_code == 200
    assert re.search(r'src="/', page.text)
    assert not re.search(r'(src|href)="(https?:)?//', page.text)


# Keys.


@pytest.fixture(scope="module")
def locked(front: Front) -> TestClient:
    return client_of(replace(front, api_key_hashes=(hash_key("first"), hash_key("second"))))


@pytest.mark.parametrize("key", ["first", "second"])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_any_of_the_keys_opens(locked: TestClient, body: dict[str, Any], key: str, scheme: str) -> None:
    response = locked.post("/v1/signals", json=body, headers={"Authorization": f"{scheme} {key}"})
    assert response.status_code == 200


@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer ", "Bearer third", "Bearer firs", "Basic first", "first", "Bearer first second"],
)
@pytest.mark.parametrize("path", ["/v1/signals", "/v1/signals:batch", "/predict", "/v1/monitor"])
def test_no_key_or_a_wrong_one_is_refused_before_the_body_is_read(
    locked: TestClient, header: str | None, path: str
) -> None:
    headers = {} if header is None else {"Authorization": header}
    method = "GET" if path == "/v1/monitor" else "POST"
    response = locked.request(method, path, content=b"not json", headers=headers)
    document = error_of(response, 401, "unauthorized")
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer <key>" in document["error"]


@pytest.mark.parametrize("path", ["/v2/health/live", "/docs", "/openapi.json"])
def test_health_and_documentation_need_no_key(locked: TestClient, path: str) -> None:
    assert locked.get(path).status_code == 200


def test_the_documentation_says_that_keys_are_needed(locked: TestClient) -> None:
    document = locked.get("/openapi.json").json()
    assert document["components"]["securitySchemes"] == {"key": {"type": "http", "scheme": "bearer"}}


# Errors.


@pytest.mark.parametrize(
    ("change", "status", "code", "action"),
    [
        ({"symbol": "FB"}, 422, "unknown_symbol", "HOLD"),
        ({"symbol": "FB", "position": LONG}, 422, "unknown_symbol", "SELL"),
        ({"bars": {}}, 422, "missing_columns", "HOLD"),
        ({"bars": 3, "position": LONG}, 422, "wrong_type", "SELL"),
        ({"bars": None}, 400, "malformed", "HOLD"),
        ({"bars": None, "position": LONG}, 400, "malformed", "SELL"),
        ({"position": {"status": "SHORT"}}, 422, "invalid_position", "HOLD"),
        ({"position": {"status": "LONG"}}, 422, "invalid_position", "HOLD"),
        ({"position": {**LONG, "time_in_position_bars": -1}}, 422, "invalid_position", "HOLD"),
    ],
)
def test_an_unusable_request_says_why_and_what_to_do(
    client: TestClient, body: dict[str, Any], change: dict[str, Any], status: int, code: str, action: str
) -> None:
    response = client.post("/v1/signals", json={**body, **change}, headers={"X-Request-Id": "abc"})
    document = error_of(response, status, code)
    assert document["detail"]["fallback_action"] == action
    assert document["request_id"] == "abc"


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/signals:batch", "/predict"])
@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"null"])
def test_a_body_that_is_no_json_object_is_a_400(client: TestClient, path: str, content: bytes) -> None:
    document = error_of(client.post(path, content=content), 400, "malformed")
    assert document["detail"]["fallback_action"] == "HOLD"


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/signals:batch", "/predict"])
def test_a_body_that_is_too_large_is_a_413(client: TestClient, path: str) -> None:
    document = error_of(client.post(path, content=b" " * (CONFIG.max_body_bytes + 1)), 413, "too_large")
    assert document["detail"] == {"max_body_bytes": CONFIG.max_body_bytes, "fallback_action": "HOLD"}


def statuses(front: Front, receive: Callable[[], Awaitable[Any]]) -> list[int]:
    """Send a request whose body comes as `receive` says; return the statuses of what is answered."""
    answers: list[Any] = []

    async def send(message: Any) -> None:
        answers.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/signals", "headers": [], "query_string": b""}
    asyncio.run(create_api(front)(scope, receive, send))
    return [message["status"] for message in answers if message["type"] == "http.response.start"]


def test_no_more_of_a_body_is_read_than_is_taken(front: Front) -> None:
    read = count()

    async def receive() -> dict[str, Any]:
        next(read)
        return {"type": "http.request", "body": b" " * 50_000, "more_body": True}

    assert statuses(front, receive) == [413]
    assert next(read) == CONFIG.max_body_bytes // 50_000 + 1


def test_a_body_that_does_not_arrive_is_a_408(front: Front) -> None:
    async def receive() -> Any:
        await asyncio.Event().wait()

    hasty = replace(front, config=CONFIG.model_copy(update={"body_timeout_s": 0.01}))
    assert statuses(hasty, receive) == [408]


def test_a_client_who_leaves_amid_a_body_is_no_defect(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    begun = {"type": "http.request", "body": b'{"symbol"', "more_body": True}
    parts = iter([begun, {"type": "http.disconnect"}])

    async def receive() -> Any:
        return next(parts)

    assert statuses(front, receive) == [499]
    assert not caplog.records


def test_a_history_or_a_batch_that_is_too_long_is_a_413(client: TestClient, bars: dict[str, Bars]) -> None:
    long = {"symbol": "IBM", "bars": bars_as_columns(bars["IBM"].tail(401)), "position": LONG}
    document = error_of(client.post("/v1/signals", json=long), 413, "too_large")
    assert document["detail"] == {"max_bars": 400, "fallback_action": "SELL"}
    document = error_of(client.post("/v1/signals:batch", json={"requests": [{}] * 5}), 413, "too_large")
    assert document["detail"]["max_batch_requests"] == 4


def test_a_full_queue_is_a_503_that_says_when_to_come_back(front: Front, body: dict[str, Any]) -> None:
    full = Answering(Refused(Overloaded("1024 requests are waiting", retry_after_s=3, fallback_action=Action.SELL)))
    response = client_of(replace(front, service=full)).post("/v1/signals", json=body)
    document = error_of(response, 503, "overloaded")
    assert response.headers["Retry-After"] == "3"
    assert document["detail"]["fallback_action"] == "SELL"


def test_a_429_says_when_to_come_back_too() -> None:
    response = respond_error("id", TooManyViewers("32 look already"))
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")


def test_a_monitor_that_does_not_answer_is_a_503_that_says_when_to_come_back(front: Front) -> None:
    async def monitor() -> dict[str, Any]:
        raise MonitorUnavailable("the monitor does not answer: TimeoutError; try again")

    heard: list[Call] = []
    client = client_of(replace(front, monitor=monitor, record=heard.append))
    for path in ("/v1/monitor", "/v1/alerts"):
        response = client.get(path)
        error_of(response, 503, "monitor_unavailable")
        assert "Retry-After" in response.headers
    assert not heard, "looking on while the monitor is away counts among the requests that fail"


@pytest.fixture(scope="module")
def watched(front: Front) -> Front:
    """One that people can look at."""

    async def monitor() -> dict[str, Any]:
        return {"variants": {}}

    async def chart(symbol: str) -> dict[str, Any]:
        return {"symbol": symbol, "bars": [], "decisions": []}

    async def stages() -> dict[str, Any]:
        return {"router": {"running": 1, "replicas": 1, "status": "HEALTHY"}}

    return replace(front, dashboard=Sources(Topology.FUSED, monitor, chart, stages, front.service.readiness))


def test_the_page_holds_all_that_it_needs(watched: Front) -> None:
    page = client_of(watched).get("/dashboard")
    assert page.status_code == 200
    assert "default-src 'self'" in page.headers["Content-Security-Policy"]
    named = re.findall(r"""(?:src|href|from)[= ]["'](\.?[\w./-]+\.(?:js|mjs|css))["']""", page.text)
    assert named == ["dashboard.css", "main.js"]
    for name in named:
        assert client_of(watched).get(f"/dashboard/{name}").status_code == 200
    assert client_of(watched).get("/dashboard/nothing.js").status_code == 404


def test_the_page_needs_no_key_and_what_it_shows_does(watched: Front) -> None:
    locked = client_of(replace(watched, api_key_hashes=(hash_key("first"),)))
    assert locked.get("/dashboard/").status_code == 200
    for path in ("/v1/events", "/v1/charts/IBM"):
        error_of(locked.get(path), 401, "unauthorized")
    known = {"Authorization": "Bearer first"}
    assert locked.get("/v1/charts/IBM", headers=known).json()["symbol"] == "IBM"


def test_events_are_sent_as_they_come(watched: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "EVERY_S", 0.05)
    monkeypatch.setattr(feed, "STREAM_S", 0.25)
    with client_of(watched).stream("GET", "/v1/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        lines = [line for line in response.iter_lines() if line]
    states = [orjson.loads(line.removeprefix("data: ")) for line in lines]
    assert len(states) > 1
    assert states[-1]["stages"]["router"]["running"] == 1


def test_what_was_asked_is_told_with_what_was_answered(front: Front, body: dict[str, Any]) -> None:
    heard = Recorder()
    client = client_of(replace(front, record=heard.record))
    client.post("/v1/signals:batch", json={"requests": [body, {**body, "symbol": "NOBODY"}, {"symbol": 1}]})
    assert [one.symbol for one in heard.asked] == [body["symbol"]]


def test_a_defect_of_ours_is_a_500_in_our_shape_that_gives_nothing_away(front: Front, body: dict[str, Any]) -> None:
    broken, heard = Answering(RuntimeError("/secret/path is gone")), Recorder()
    client = client_of(replace(front, service=broken, record=heard.record))
    response = client.post("/v1/signals", json=body, headers={"X-Request-Id": "abc"})
    document = error_of(response, 500, "internal")
    assert [getattr(answer, "code", None) for answer, _ in heard.heard] == ["internal"]
    assert "secret" not in response.text
    assert document["request_id"] == "abc"


def test_a_time_out_of_range_harms_no_other_request_of_its_batch(client: TestClient, body: dict[str, Any]) -> None:
    early = {**body, "bars": {**body["bars"], "timestamp": ["0001-01-01T00:00:00+01:00"] * NEEDED}}
    results = client.post("/v1/signals:batch", json={"requests": [early, body]}).json()["results"]
    assert results[0]["code"] == "wrong_type"
    assert results[1]["status"] == "ok"


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/signal", "/v3/signals"])
def test_an_unknown_route_is_a_404_in_our_shape(client: TestClient, path: str) -> None:
    document = error_of(client.get(path, headers={"X-Request-Id": "abc"}), 404, "not_found")
    assert document["error"] == f"GET {path}: Not Found; see /docs"
    assert document["request_id"] == "abc"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/v1/signals", "POST"), ("DELETE", "/predict", "POST"), ("POST", "/v1/monitor", "GET")],
)
def test_a_wrong_method_is_a_405_that_names_the_right_one(
    client: TestClient, method: str, path: str, allowed: str
) -> None:
    response = client.request(method, path)
    error_of(response, 405, "method_not_allowed")
    assert response.headers["Allow"] == allowed


# Request ids.


@pytest.mark.parametrize("request_id", ["a", "x" * 128, "3f2b/7:#[]~!"])
def test_a_visible_request_id_is_taken(
    client: TestClient, body: dict[str, Any], bars: dict[str, Bars], request_id: str
) -> None:
    headers = {"X-Request-Id": request_id}
    answers = [client.post("/v1/signals", json=body, headers=headers).json() for _ in range(2)]
    asked = SignalRequest("IBM", window(bars["IBM"]))
    assert {answer["decision_id"] for answer in answers} == {by_request(request_id)(0, asked)}


@pytest.mark.parametrize("request_id", [b"", b"x" * 129, b"a b", b"a\tb", b"\xe9t\xe9", b"a\x7fb"])
def test_a_request_id_that_cannot_be_echoed_is_refused_and_not_repeated(
    client: TestClient, body: dict[str, Any], request_id: bytes
) -> None:
    response = client.post("/v1/signals", json=body, headers=[(b"X-Request-Id", request_id)])
    document = error_of(response, 400, "malformed")
    assert document["error"] == "X-Request-Id must be 1 to 128 visible ASCII characters"
    assert document["request_id"].isalnum()


def test_without_a_request_id_every_request_gets_one_of_its_own(client: TestClient, body: dict[str, Any]) -> None:
    answers = [client.post("/v1/signals", json=body).json() for _ in range(2)]
    assert answers[0]["decision_id"] != answers[1]["decision_id"]


# Health and monitor.


def test_a_process_that_answers_is_live(client: TestClient) -> None:
    assert client.get("/v2/health/live").json() == {"live": True}


@pytest.mark.parametrize(
    ("reasons", "status"),
    [
        ({"production": None}, 200),
        ({"production": None, "candidate": None}, 200),
        ({"production": "StageUnavailable: no replica yet"}, 503),
        ({"production": None, "candidate": "ParityError: golden case 0"}, 503),
    ],
)
def test_the_graph_is_ready_when_all_its_variants_are(
    front: Front, reasons: dict[str, str | None], status: int
) -> None:
    service = Answering(RuntimeError("not asked"), reasons)
    response = client_of(replace(front, service=service)).get("/v2/health/ready")
    assert response.status_code == status
    assert response.json() == {
        "ready": status == 200,
        "variants": {name: {"ready": reason is None, "reason": reason} for name, reason in reasons.items()},
    }


def test_the_monitor_answers_what_it_has(client: TestClient) -> None:
    assert client.get("/v1/monitor").json() == {"variants": {}}


def test_alerts_are_those_that_the_monitor_knows(front: Front) -> None:
    async def monitor() -> dict[str, Any]:
        return {"variants": {}, "alerts": [{"alert": "memory"}], "events": [{"state": "firing"}]}

    document = client_of(replace(front, monitor=monitor)).get("/v1/alerts").json()
    assert document == {"alerts": [{"alert": "memory"}], "events": [{"state": "firing"}]}


def test_the_monitor_hears_of_every_answer_with_its_latency(
    client: TestClient, body: dict[str, Any], recorder: Recorder
) -> None:
    recorder.heard.clear()
    client.post("/v1/signals", json=body)
    client.post("/v1/signals:batch", json={"requests": [body, {**body, "symbol": "FB"}]})
    client.post("/v1/signals", content=b"{")
    answers = [answer for answer, _ in recorder.heard]
    assert [getattr(answer, "code", None) for answer in answers] == [None, None, "unknown_symbol", "malformed"]
    assert [latency for _, latency in recorder.heard] == [1000.0, 1000.0, 1000.0, 0.0]  # by a clock of ticks
    assert isinstance(answers[0], Decision)
    assert answers[0].variant is VariantName.PRODUCTION
