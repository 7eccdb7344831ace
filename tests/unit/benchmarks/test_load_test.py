"""The load test: its ramp, what it makes of answers, its verdict, its picture, and Locust against a small server."""

import json
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from threading import Thread

import pytest

from benchmarks.load_test.__main__ import bundle_of
from benchmarks.load_test.answers import Answer, Percentiles, Second, Tally, read_answer
from benchmarks.load_test.load import LoadFailed, loading, make_bodies
from benchmarks.load_test.picture import draw
from benchmarks.load_test.ramp import Ramp
from benchmarks.load_test.record import SCALED, Record
from benchmarks.load_test.replicas import Replicas, UnknownGraph, dashboard_of, watch
from benchmarks.load_test.replicas import count as count_replicas
from benchmarks.machine import machine
from deployments import serve_status
from deployments.serve_status import ApplicationStatus, DeploymentStatus
from serve_app.errors import ConfigError
from serve_app.pipeline import Pipeline
from serve_app.schemas.decode import Limits, parse_signal

LIMITS = Limits(max_body_bytes=2**20, max_bars=100, max_batch_requests=1)
RAMP = Ramp(users=10, ramp_up=10, hold=20, ramp_down=5, cool=15)
DECISION = json.dumps({"status": "ok", "timings_ms": {"queue": 2.5, "model": 4.0}}).encode()
ABSTENTION = json.dumps({"status": "abstain", "reason": "deadline", "timings_ms": {}}).encode()


def second(t: float, decisions: int = 10, abstentions: int = 0, faults: dict[str, int] | None = None) -> Second:
    return Second(t, 1.0, 3, decisions, abstentions, faults or {}, Percentiles(5.0, 9.0), Percentiles(1.0, 2.0))


def record(counts: Sequence[int], seconds: Sequence[Second] = (second(1.0), second(2.0))) -> Record:
    replicas = [Replicas(float(t), {SCALED: n}, {SCALED: n}) for t, n in enumerate(counts)]
    return Record(RAMP, "configs/x.yaml", "a machine", "2026-01-01", "c0ffee", 0.0, seconds, replicas)


@pytest.mark.parametrize(
    ("t", "users"),
    [(0, 1), (5, 5), (9.5, 10), (10, 10), (29.9, 10), (30, 10), (32, 6), (34.9, 1), (35, 1), (49.9, 1), (50, None)],
)
def test_users_come_stay_go_and_one_of_them_waits(t: float, users: int | None) -> None:
    assert RAMP.users_at(t) == users


def test_a_ramp_without_slopes_is_a_step() -> None:
    step = Ramp(users=7, ramp_up=0, hold=2, ramp_down=0, cool=1)
    assert [step.users_at(t) for t in (0, 1.9, 2, 2.9, 3)] == [7, 7, 1, 1, None]


def test_a_decision_an_abstention_and_everything_else_are_told_apart() -> None:
    assert read_answer(200, DECISION) == Answer(queue_ms=2.5)
    assert read_answer(200, ABSTENTION) == Answer(abstained=True)
    assert read_answer(503, b'{"error": "7 rows wait", "code": "overloaded"}').fault == "HTTP 503: overloaded"
    assert read_answer(503, b"later").fault == "HTTP 503: later"
    assert read_answer(0, b"").fault == "no answer"


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b"7", b"{}", b'{"status": "ok"}', b'{"status": "fine"}', b"\xff"]
)
def test_a_200_that_is_no_decision_is_a_fault(body: bytes) -> None:
    fault = read_answer(200, body).fault
    assert fault is not None
    assert fault.startswith("HTTP 200: ")


def test_a_tally_counts_every_answer_once() -> None:
    tally = Tally(since=100.0)
    for status, body, latency_ms in ((200, DECISION, 4.0), (200, ABSTENTION, 6.0), (503, b"", 8.0), (503, b"", 10.0)):
        tally.add(read_answer(status, body), latency_ms)
    closed = tally.close(now=102.0, users=3)
    assert (closed.decisions, closed.abstentions, closed.failed, closed.requests) == (1, 1, 2, 4)
    assert closed.faults == {"HTTP 503: ": 2}
    assert closed.per_s == 2.0
    assert closed.latency_ms == Percentiles(7.0, 9.7)
    assert closed.queue_ms == Percentiles(2.5, 2.5)


def test_a_second_survives_its_line_also_an_empty_one() -> None:
    empty = Tally(since=1.0).close(now=2.0, users=0)
    assert empty.latency_ms is None
    for one in (second(1.0, faults={"HTTP 500: é": 1}), empty):
        assert Second.from_json(one.to_json()) == one


def test_up_and_down_without_a_failure_is_as_it_must_be() -> None:
    assert list(record([1, 1, 3, 4, 2, 1]).complaints()) == []


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ([1, 1, 1], "did not scale up: 1 at the start and never more"),
        ([2, 1, 2], "did not scale up: 2 at the start and never more"),
        ([1, 4, 3], "did not scale down: 1 at the start, 4 at most, 3 at the end"),
        ([], "never said how many replicas"),
        ([0, 0], "never said how many replicas"),
    ],
)
def test_a_model_that_does_not_scale_is_a_complaint(counts: list[int], complaint: str) -> None:
    (found,) = record(counts).complaints()
    assert complaint in found


def test_failed_requests_are_a_complaint_and_abstentions_are_only_counted() -> None:
    seconds = [second(1.0, abstentions=4), second(2.0, faults={"HTTP 503: later": 2, "no answer": 1})]
    seen = record([1, 2, 1], seconds)
    assert list(seen.complaints()) == ["3 of 27 requests failed: 2 times HTTP 503: later; 1 times no answer"]
    assert dict(seen.summary()) == {
        f"replicas of {SCALED}": "1 at the start, 2 at most, 1 at the end",
        "requests": "27, at most 14 in a second",
        "failed": "3",
        "abstentions": "4",
    }


def test_no_request_at_all_is_a_complaint() -> None:
    assert list(record([1, 2, 1], []).complaints()) == ["no request was answered"]


@pytest.mark.parametrize("seconds", [[], [second(1.0, 9, 1, {"no answer": 2}), Tally(1.0).close(2.0, 0)]])
@pytest.mark.parametrize("counts", [[], [1, 4, 1]])
def test_whatever_was_seen_can_be_drawn_and_written(tmp_path: Path, seconds: list[Second], counts: list[int]) -> None:
    seen = record(counts, seconds)
    draw(seen, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(json.dumps(seen.document()))["ramp"]["users"] == RAMP.users


def test_the_machine_is_named() -> None:
    assert "cores" in machine()


def _applications(running: int) -> tuple[ApplicationStatus, ...]:
    model = DeploymentStatus("model", "UPSCALING", "", running, 4)
    return (ApplicationStatus("model-production", "RUNNING", "", (model,)),)


def test_the_model_of_the_verdict_is_the_one_that_ray_serve_names() -> None:
    one = count_replicas(5.0, _applications(2))
    assert one == Replicas(5.0, {SCALED: 2}, {SCALED: 4})


def test_replicas_are_counted_once_more_when_the_load_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([_applications(1), (), _applications(4)])  # the second time the dashboard does not answer
    monkeypatch.setattr(serve_status, "applications", lambda *_: next(states))
    over = iter([False, True])
    assert [one.running[SCALED] for one in watch("http://dashboard", lambda _: next(over))] == [1, 4]


def test_a_graph_of_nobody_needs_the_address_of_its_dashboard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SIGNALGRAPH_STATE_DIR", str(tmp_path))
    with pytest.raises(UnknownGraph, match="--dashboard"):
        dashboard_of("http://127.0.0.1:1")


@pytest.mark.usefixtures("in_the_clone")
def test_the_bodies_are_requests_that_the_bundle_answers(pipeline: Pipeline) -> None:
    bodies = make_bodies(bundle_of(Path("configs/autoscale_demo.yaml")))
    assert len(set(bodies)) == len(bodies) > 20
    for body in bodies:
        pipeline.row(parse_signal(json.loads(body), LIMITS))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("applications: 7", "applications"),
        ("applications: [{name: a, import_path: 'benchmarks.echo:bare'}]", "no bundle to ask"),
    ],
)
def test_a_configuration_without_a_model_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(text)
    with pytest.raises(ConfigError, match=complaint):
        bundle_of(config)


class _Server(ThreadingHTTPServer):
    """Answers with a decision, an abstention, a 503 and a closed connection in turn."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked = 0
        self.turns = count()
        self.bodies: set[bytes] = set()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        self.server.asked += 1
        self.server.bodies.add(self.rfile.read(int(self.headers["Content-Length"])))
        turn = next(self.server.turns) % 4
        if turn == 3:
            self.close_connection = True
            return
        status, body = ((200, DECISION), (200, ABSTENTION), (503, b"later"))[turn]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[_Server]:
    with _Server() as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_locust_loses_no_request_and_tells_them_apart(server: _Server) -> None:
    url = f"http://127.0.0.1:{server.server_port}"
    # Users are counted once a second: at the first count both are there, and for another second.
    with loading(url, [b'{"a": 1}', b'{"b": 2}'], Ramp(users=2, ramp_up=0, hold=2, ramp_down=0, cool=1)) as load:
        assert load.over(within_s=60)
        seconds = load.seconds()
    assert sum(one.requests for one in seconds) == server.asked
    assert all(sum(counts) for counts in zip(*[(s.decisions, s.abstentions, s.failed) for s in seconds], strict=True))
    assert {fault for one in seconds for fault in one.faults} == {"HTTP 503: later", "no answer"}
    assert server.bodies == {b'{"a": 1}', b'{"b": 2}'}
    assert max(one.users for one in seconds) == 2


def test_a_locust_that_breaks_is_an_error_with_its_log(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("benchmarks.load_test.load.LOCUSTFILE", tmp_path / "missing.py")
    with loading("http://127.0.0.1:1", [b"{}"], RAMP) as load, pytest.raises(LoadFailed, match=r"missing\.py"):
        load.over(within_s=60)
