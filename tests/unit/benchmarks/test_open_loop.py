"""The open loop against a small server whose every answer is known."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from benchmarks.closed_loop import Load
from benchmarks.open_loop import Answers, open_loop

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


class Server:
    """Answers 200, 503, nothing but a closed connection, 200, ... and remembers what it was asked."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.connections: set[int] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            self.bodies.append(await reader.readexactly(length))
            self.connections.add(id(writer))
            turn = len(self.bodies) % 10
            if turn == 3:
                break
            writer.write(BUSY if turn == 2 else OK)
        writer.close()

    async def run(self, started: "threading.Event") -> None:
        async def quietly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await self.serve(reader, writer)
            except (asyncio.IncompleteReadError, ConnectionError):
                writer.close()  # the client has gone

        server = await asyncio.start_server(quietly, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.loop, self.over = asyncio.get_running_loop(), asyncio.Event()
        started.set()
        async with server:
            await self.over.wait()


@pytest.fixture
def server() -> Iterator[Server]:
    server, started = Server(), threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(server.run(started)))
    thread.start()
    assert started.wait(10)
    yield server
    server.loop.call_soon_threadsafe(server.over.set)
    thread.join()


def test_every_request_is_asked_once_and_every_answer_counted(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.open_loop.PATIENCE_S", 0.5)
    load = Load(f"http://127.0.0.1:{server.port}/v1/signals", [b'{"a": 1}', b'{"b": 2}'])
    answers = open_loop(load, rate=200, seconds=0.15, connections=8)
    assert answers.counts() == {200: 24, 503: 3, 0: 3}
    assert server.bodies.count(b'{"a": 1}') == server.bodies.count(b'{"b": 2}') == 15
    assert 0 < answers.percentile(50) <= answers.percentile(99)


def test_a_slow_rate_stays_on_few_connections(server: Server) -> None:
    server.bodies += [b""] * 3  # so that none of the next six is left without an answer
    load = Load(f"http://127.0.0.1:{server.port}/", [b"{}"])
    assert open_loop(load, rate=20, seconds=0.3, connections=8).counts() == {200: 6}
    assert len(server.connections) < 6


def test_percentiles_are_those_of_good_answers_and_what_is_missing_is_counted() -> None:
    answers = Answers(5, [200, 429, 200, 503], [10.0, 1.0, 20.0, 1.0])
    assert answers.counts() == {200: 2, 429: 1, 503: 1, 0: 1}
    assert answers.percentile(50) == 15.0
    assert Answers(1, [503], [1.0]).percentile(99) == float("inf")
