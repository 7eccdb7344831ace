"""Clients who go on asking while a graph is disturbed, and what they were told."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import cycle
from typing import Any

import httpx2

from serve_app.documentation import bars_as_columns
from serve_app.identity import by_request
from serve_app.schemas import REQUEST_ID
from serve_app.types import Bars, SignalRequest
from tests.factories import window
from tests.waiting import wait_for

N = 4
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
WINDOWS = 25
"""Of each symbol, so that hardly two decisions in flight are alike."""


class Clients:
    """Some, each of whom asks one request after the other, under an id of its own, until told to stop."""

    def __init__(self, url: str, bars: dict[str, Bars]) -> None:
        self.asked: list[str] = []
        """The ids of the decisions that were asked for."""
        self.answers: list[dict[str, Any]] = []
        self.others: list[str] = []
        """What was said in place of an answer."""
        self._url = url
        self._bars = [(one, window(bars[one], ago)) for ago in range(WINDOWS) for one in SYMBOLS]
        self._bodies = [{"symbol": symbol, "bars": bars_as_columns(some)} for symbol, some in self._bars]
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(N)
        self._running = [self._pool.submit(self._ask, client) for client in range(N)]

    def _ask(self, client: int) -> None:
        with httpx2.Client(timeout=30) as http:
            for number, (asked, body) in enumerate(cycle(zip(self._bars, self._bodies, strict=True))):
                if self._over.is_set():
                    return
                request_id = f"{client}-{number}"
                self.asked.append(by_request(request_id)(0, SignalRequest(*asked)))
                # A proxy that takes over new routers closes connections between two requests: no answer.
                with suppress(httpx2.RemoteProtocolError):
                    response = http.post(f"{self._url}/v1/signals", json=body, headers={REQUEST_ID: request_id})
                    if response.status_code == 200:
                        self.answers.append(response.json())
                    else:
                        self.others.append(f"{response.status_code} {response.text}")

    def check_others(self) -> None:
        """Assert that whoever had no answer was asked to come back: for a moment there may have been no router."""
        assert [one for one in self.others if not one.startswith("503 ")] == []

    def wait_for_more(self) -> None:
        """Wait until many more have been answered by a model."""

        def by_a_model() -> int:
            return sum(answer["status"] == "ok" for answer in list(self.answers))

        before = by_a_model()
        wait_for(lambda: by_a_model() > before + 50, 60, lambda: f"no answers: {self.others}, {self.answers[-1:]}")

    def stop(self) -> None:
        """Let each have its last answer. Raises what has ended one before."""
        self._over.set()
        self._pool.shutdown()
        for one in self._running:
            one.result()


@contextmanager
def asking(url: str, bars: dict[str, Bars]) -> Iterator[Clients]:
    """Let clients ask all the while."""
    clients = Clients(url, bars)
    try:
        yield clients
    finally:
        clients.stop()
