"""Open loop: requests at a fixed rate, whether or not the last ones were answered, as a market sends them.

Latency runs from the time at which a request was due, not from when it could be sent: a service that stalls is charged
for everything that fell due meanwhile (no coordinated omission).
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools
import numpy as np
import uvloop

from benchmarks.closed_loop import Load

CONNECTIONS = 2048
PATIENCE_S = 15.0
"""How long answers are awaited after the last request was due."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What came back, one entry a request in the order of answers: HTTP status, and latency in ms."""

    asked: int
    status: Sequence[int]
    latency_ms: Sequence[float]

    def counts(self) -> dict[int, int]:
        """How often each status came; 0 stands for no answer."""
        found = {int(code): int(n) for code, n in zip(*np.unique(self.status, return_counts=True), strict=True)}
        lost = self.asked - len(self.status)
        return {**found, 0: lost} if lost else found

    def percentile(self, q: float) -> float:
        """Of the latency of the 200s, ms; infinite when there are none."""
        good = [latency for latency, code in zip(self.latency_ms, self.status, strict=True) if code == 200]
        return float(np.percentile(good, q)) if good else float("inf")


class _Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, run: "_Run") -> None:
        self._run = run
        self._due: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's TCP transport is no subclass of it
        self._parser = httptools.HttpResponseParser(self)
        self._run.idle.append(self)

    def send(self, request: bytes, due: float) -> None:
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        """Called by the parser."""
        assert self._due is not None  # servers answer, they do not ask
        self._run.answered(self._parser.get_status_code(), self._due)
        if self._parser.should_keep_alive():
            self._parser = httptools.HttpResponseParser(self)
            self._run.free(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  the request that it had is lost, and counted
        self._run.lost(self)


class _Run:
    def __init__(self, requests: Sequence[bytes]) -> None:
        self._requests = requests
        self._missing = 0
        self._complete = asyncio.Event()
        self.idle: deque[_Connection] = deque()
        self._waiting: deque[tuple[bytes, float]] = deque()
        self.status: list[int] = []
        self.latency_ms: list[float] = []

    def answered(self, status: int, due: float) -> None:
        self.status.append(status)
        self.latency_ms.append(1e3 * (time.perf_counter() - due))
        self._missing -= 1
        if not self._missing:
            self._complete.set()

    def free(self, connection: _Connection) -> None:
        if self._waiting:
            connection.send(*self._waiting.popleft())
        else:
            self.idle.append(connection)

    def lost(self, connection: _Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)

    def ask(self, number: int, due: float) -> None:
        request = self._requests[number % len(self._requests)]
        if self.idle:  # the last one used, as pools of clients do: a slow rate stays on few connections
            self.idle.pop().send(request, due)
        else:
            self._waiting.append((request, due))

    async def drive(self, rate: float, n: int) -> None:
        """Send each request when it is due, or at once when that is over."""
        self._missing = n
        start = time.perf_counter()
        for number in range(n):
            due = start + number / rate
            if (ahead := due - time.perf_counter()) > 0:
                await asyncio.sleep(ahead)
            self.ask(number, due)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._complete.wait(), PATIENCE_S)


def _requests(load: Load) -> list[bytes]:
    url = urlsplit(load.url)
    head = f"POST {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nContent-Type: {load.content_type}\r\n"
    return [f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body for body in load.bodies]


def open_loop(load: Load, rate: float, seconds: float, connections: int = CONNECTIONS) -> Answers:
    """Ask `rate` times a second for some seconds, and return what was answered.

    Requests for which no connection is free wait here, and their latency runs meanwhile.
    """
    url = urlsplit(load.url)
    n = round(rate * seconds)

    async def run() -> Answers:
        loop, run = asyncio.get_running_loop(), _Run(_requests(load))
        made = [
            await loop.create_connection(lambda: _Connection(run), str(url.hostname), url.port or 80)
            for _ in range(connections)
        ]
        await run.drive(rate, n)
        for transport, _ in made:
            transport.abort()
        return Answers(n, run.status, run.latency_ms)

    return uvloop.run(run())
