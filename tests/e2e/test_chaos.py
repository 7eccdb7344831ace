"""What goes wrong around a request costs nobody else an answer, in the profile that production runs."""

import json
import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from serve_app.types import Bars
from tests.e2e.conftest import ROOT, serve_run
from tests.e2e.slow_app import NOTES
from tests.factories import every_form, window
from tests.replicas import FOLDERS
from tests.waiting import wait_for

STAYING = 4
LEAVING_ROWS = 100
"""More than one batch of 64, so that the second carries rows of others too."""
WATCHED = "X-Request-Disconnect-Disabled: ?0\r\n"
"""Ray Serve shall notice that this caller leaves, and cancel."""
ROUTER = "SERVE_REPLICA_signals-router"
FLOOD = 700
"""Requests at once; a router takes 320."""


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One line for each batch that the slow model took in."""
    path = tmp_path_factory.mktemp("chaos") / "notes"
    path.touch()
    return path


@pytest.fixture(scope="module")
def slow(notes: Path) -> Iterator[str]:
    """The address of a graph behind HAProxy whose model takes half a second.

    Until HAProxy has heard of the router, it asks a proxy of Ray Serve, which asks the router by another way.
    """
    document = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    document["applications"][1]["import_path"] = "tests.e2e.slow_app:build"
    # However long a busy machine takes to send a flood, nobody is refused but for want of room.
    patient = {"deadline_ms": 60_000, "max_queue_ms": 60_000}
    document["applications"][0]["args"]["variants"]["production"] |= patient
    with serve_run(document, haproxy=True, **{NOTES: str(notes)}) as url:
        wait_for(lambda: ROUTER in servers(url), 30, lambda: servers(url))
        yield url


def servers(url: str) -> str:
    """Return what HAProxy says of those that it asks."""
    (path,) = FOLDERS[url].glob("h/*/admin.sock")
    with socket.socket(socket.AF_UNIX) as admin, admin.makefile("rb") as said:
        admin.connect(str(path))
        admin.sendall(b"show stat\n")
        return said.read().decode()


def send(url: str, path: str, body: Mapping[str, Any], headers: str = "") -> socket.socket:
    """Send a request and do not wait for its answer."""
    content = json.dumps(body).encode()
    host, port = url.removeprefix("http://").split(":")
    caller = socket.create_connection((host, int(port)))
    head = f"POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {len(content)}\r\n"
    caller.sendall(f"{head}{headers}\r\n".encode() + content)
    return caller


def answer(caller: socket.socket) -> dict[str, Any]:
    """Wait for the answer."""
    with caller, caller.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200"), head
    document: dict[str, Any] = json.loads(body)
    return document


def test_a_caller_who_hangs_up_while_a_batch_is_in_the_model_disturbs_nobody_in_it(
    slow: str, notes: Path, bars: dict[str, Bars]
) -> None:
    path, body = every_form("MSFT", window(bars["MSFT"]))["columns"]

    def sizes() -> list[int]:
        return [int(line) for line in notes.read_text().split()]

    before = len(sizes())
    leaving = send(slow, "/v1/signals:batch", {"requests": [body] * LEAVING_ROWS}, WATCHED)
    wait_for(lambda: len(sizes()) > before, 30, lambda: "no batch reached the model")
    staying = [send(slow, path, body) for _ in range(STAYING)]
    wait_for(lambda: len(sizes()) > before + 1, 30, lambda: "no second batch reached the model")
    leaving.close()
    answers = [answer(caller) for caller in staying]
    assert sizes()[before:][:2] == [64, LEAVING_ROWS - 64 + STAYING]
    assert [(a["status"], a["reason"]) for a in answers] == [("ok", None)] * STAYING
    assert len({a["prediction_probability"] for a in answers}) == 1


def reply(caller: socket.socket) -> tuple[int, bool, dict[str, Any]]:
    """Wait for an answer; return its status, whether it says when to try again, and its document."""
    with caller, caller.makefile("rb") as stream:
        head, _, body = stream.read().partition(b"\r\n\r\n")
    return int(head.split()[1]), b"retry-after:" in head.lower(), json.loads(body)


def test_a_flood_is_answered_or_refused_and_the_graph_is_there_afterwards(slow: str, bars: dict[str, Bars]) -> None:
    path, body = every_form("MSFT", window(bars["MSFT"]))["columns"]
    replies = [reply(caller) for caller in [send(slow, path, body) for _ in range(FLOOD)]]
    counts = Counter(status for status, _, _ in replies)
    assert counts.keys() == {200, 429}
    assert all(again == (status != 200) for status, again, _ in replies)
    codes = {(status, document["code"]) for status, _, document in replies if status != 200}
    assert codes == {(429, "router_full")}
    assert answer(send(slow, path, body))["status"] == "ok"

    def counted() -> int:
        errors: dict[str, int] = httpx2.get(slow + "/v1/monitor", timeout=30).json()["errors"]
        return errors.get("router_full", 0)

    wait_for(lambda: counted() == counts[429], 30, lambda: f"{counted()} of {counts[429]} are counted")
