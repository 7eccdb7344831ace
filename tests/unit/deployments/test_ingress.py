"""What is in front of replicas: connections are accepted when they come, and POSTs are not watched over."""

import asyncio
import json
import math
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import ClassVar, cast

import pytest
import uvloop
from starlette.types import Message, Receive, Scope, Send

from deployments import profile
from deployments.ingress import _TELL_EACH, AcceptsAll, Admission, middlewares, room
from deployments.metrics import IngressMetrics
from deployments.ports import Ports
from tests.unit.deployments.test_profile import RUN_DIR

WAITING = 60
DISCONNECTS, TIMEOUT = b"x-request-disconnect-disabled", b"x-request-timeout-seconds"


class Counted(asyncio.Protocol):
    """Counts connections, and echoes."""

    made: ClassVar[list[asyncio.Transport]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it
        self.made.append(self._transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with closing(socket.create_server(("127.0.0.1", 0), backlog=2 * WAITING)) as sock:
        sock.setblocking(False)
        yield sock


@pytest.fixture
def clients(listening: socket.socket) -> Iterator[list[socket.socket]]:
    """Connections that wait to be accepted, each with a request that the kernel holds."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(listening.getsockname())) for _ in range(WAITING)]
        for number, client in enumerate(made):
            client.sendall(b"%d" % number)
            client.settimeout(10)
        yield made


async def turns_until(made: int) -> int:
    """Return after how many turns of the loop as many connections are accepted."""
    turns = 0
    while len(Counted.made) < made and turns < 10 * WAITING:
        await asyncio.sleep(0)
        turns += 1
    return turns


async def hang_up(server: asyncio.AbstractServer) -> None:
    """Leave no connection open when the loop ends."""
    server.close()
    for transport in Counted.made:
        transport.abort()
    await asyncio.sleep(0)


async def accept_in_one_turn(sock: socket.socket, clients: list[socket.socket]) -> int:
    Counted.made.clear()
    accepts = AcceptsAll(asyncio.get_running_loop())
    server = await accepts.create_server(Counted, sock=sock)
    turns = await turns_until(len(clients))
    answers = await asyncio.gather(*(asyncio.to_thread(client.recv, 10) for client in clients))
    assert answers == [b"%d" % number for number in range(len(clients))]
    await hang_up(server)
    return turns


@pytest.mark.parametrize("run", [uvloop.run, asyncio.run], ids=["uvloop", "asyncio"])
def test_all_who_wait_are_accepted_at_once_and_answered(
    run: type, listening: socket.socket, clients: list[socket.socket]
) -> None:
    assert run(accept_in_one_turn(listening, clients)) < WAITING / 4


def test_uvloop_alone_accepts_one_a_turn(listening: socket.socket, clients: list[socket.socket]) -> None:
    """When this fails, libuv accepts in a loop again, and AcceptsAll is in vain."""

    async def alone() -> int:
        Counted.made.clear()
        server = await asyncio.get_running_loop().create_server(Counted, sock=listening)
        turns = await turns_until(len(clients))
        await hang_up(server)
        return turns

    assert uvloop.run(alone()) >= WAITING


def test_a_server_that_was_closed_accepts_nobody(listening: socket.socket) -> None:
    async def closed() -> None:
        accepts = AcceptsAll(asyncio.get_running_loop())
        server = await accepts.create_server(Counted, sock=listening)
        server.close()
        listening.close()
        accepts._rest(Counted, listening)  # a turn late

    Counted.made.clear()
    uvloop.run(closed())
    assert Counted.made == []


def test_a_server_without_a_socket_is_the_loops_own() -> None:
    async def own() -> bytes:
        accepts = AcceptsAll(asyncio.get_running_loop())
        server = await accepts.create_server(Counted, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"hello")
        answer = await reader.read(10)
        writer.close()
        await hang_up(server)
        return answer

    assert uvloop.run(own()) == b"hello"


async def silent(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer nothing."""


def nobody(_: int) -> None:
    raise AssertionError


def headers_of(method: str, *given: tuple[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what Ray Serve makes of the headers behind the middleware."""
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
        seen.append(scope)

    async def nothing() -> Message:
        raise AssertionError

    async def nowhere(_: Message) -> None:
        raise AssertionError

    scope = {"type": "http", "method": method, "headers": list(given)}
    asyncio.run(Admission(app, lambda: 1, nobody)(scope, nothing, nowhere))
    return dict(seen[0]["headers"])


def test_a_post_is_not_watched_over() -> None:
    assert headers_of("POST", (b"host", b"x")) == {b"host": b"x", DISCONNECTS: b"?1", TIMEOUT: b"0"}


def test_a_client_has_the_last_word() -> None:
    assert headers_of("POST", (TIMEOUT, b"3"))[TIMEOUT] == b"3"


def test_nothing_else_is_changed() -> None:
    assert headers_of("GET", (b"host", b"x")) == {b"host": b"x"}


class Door:
    """An application behind an Admission with room for two; each request stays until it is let go."""

    def __init__(self, proxied: bool = False) -> None:
        self.refused = 0
        self.inside = 0
        self.sent: list[list[Message]] = []
        self._leave = asyncio.Event()
        self._admission = Admission(self._app, lambda: 2, self._refuse, proxied)

    def _refuse(self, n: int) -> None:
        self.refused += n

    async def _app(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        self.inside += 1
        await self._leave.wait()
        self.inside -= 1
        if scope["path"] == "/broken":
            raise ValueError("a defect")
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(self, method: str = "POST", path: str = "/v1/signals", *headers: tuple[bytes, bytes]) -> None:
        messages: list[Message] = []
        self.sent.append(messages)

        async def unread() -> Message:
            raise AssertionError("a refusal reads nothing")

        async def send(message: Message) -> None:
            messages.append(message)

        scope = {"type": "http", "method": method, "path": path, "headers": list(headers)}
        await self._admission(scope, unread, send)

    async def fill(self, path: str) -> list["asyncio.Task[None]"]:
        asked = [asyncio.create_task(self.ask(path=path)) for _ in range(2)]
        await asyncio.sleep(0)
        return asked

    async def empty(self, asked: list["asyncio.Task[None]"]) -> list[BaseException | None]:
        self._leave.set()
        return await asyncio.gather(*asked, return_exceptions=True)


@pytest.mark.parametrize("request_id", ["mine", 'a"b\\c'])
def test_one_too_many_is_refused_unread_in_the_shape_of_every_error(request_id: str) -> None:
    async def refusal() -> list[Message]:
        door = Door()
        asked = await door.fill("/v1/signals")
        await door.ask("POST", "/v1/signals", (b"x-request-id", request_id.encode()))
        assert (door.inside, door.refused) == (2, 1)
        await door.empty(asked)
        return door.sent[-1]

    start, body = asyncio.run(refusal())
    headers = dict(start["headers"])
    assert start["status"] == 429
    assert headers[b"retry-after"] == b"1"
    assert headers[b"x-request-id"] == request_id.encode()
    assert headers[b"content-length"] == b"%d" % len(body["body"])
    document = json.loads(body["body"])
    assert (document["code"], document["request_id"]) == ("router_full", request_id)
    assert document["detail"] == {"retry_after_s": 1, "fallback_action": "HOLD"}


@pytest.mark.parametrize("path", ["/v1/signals", "/broken"])
def test_who_is_answered_makes_room_whatever_became_of_the_request(path: str) -> None:
    async def again() -> tuple[int, int]:
        door = Door()
        await door.empty(await door.fill(path))
        await door.ask()
        return door.inside, door.refused

    assert asyncio.run(again()) == (0, 0)


def test_who_looks_is_neither_refused_nor_counted() -> None:
    async def looks() -> tuple[int, int]:
        door = Door()
        looking = [asyncio.create_task(door.ask("GET")) for _ in range(3)]
        asked = await door.fill("/v1/signals")
        looking.append(asyncio.create_task(door.ask("GET")))
        await asyncio.sleep(0)
        inside = door.inside
        await door.empty([*looking, *asked])
        return inside, door.refused

    assert asyncio.run(looks()) == (6, 0)


REFUSED = b"x-signalgraph-refused"


@pytest.mark.parametrize("proxied", [True, False])
def test_what_haproxy_has_refused_is_counted_where_it_is_ours(proxied: bool) -> None:
    async def ask() -> int:
        door = Door(proxied)
        await door.empty([])
        await door.ask("GET", "/v1/monitor", (REFUSED, b"7"))
        await door.ask("POST", "/v1/signals", (REFUSED, b"30"))
        await door.ask("POST", "/v1/signals", (REFUSED, b"no number"))
        return door.refused

    assert asyncio.run(ask()) == (37 if proxied else 0)


@pytest.mark.parametrize("proxied", [True, False])
def test_haproxy_is_told_now_and_then_what_a_router_takes(proxied: bool) -> None:
    async def ask() -> list[bytes | None]:
        door = Door(proxied)
        await door.empty([])
        for _ in range(_TELL_EACH):
            await door.ask("GET")
        for _ in range(_TELL_EACH + 1):
            await door.ask()
        return [dict(messages[0]["headers"]).get(b"x-signalgraph-takes") for messages in door.sent]

    told = [_TELL_EACH, 2 * _TELL_EACH] if proxied else []
    said = asyncio.run(ask())
    assert [number for number, takes in enumerate(said) if takes is not None] == told
    assert {said[number] for number in told} <= {b"2"}


def test_a_refusal_may_tell_it_too() -> None:
    async def refusal() -> Message:
        door = Door(proxied=True)
        asked = await door.fill("/v1/signals")
        for _ in range(_TELL_EACH - 1):
            await door.ask()
        await door.empty(asked)
        return door.sent[-1][0]

    start = asyncio.run(refusal())
    assert (start["status"], dict(start["headers"])[b"x-signalgraph-takes"]) == (429, b"2")


def test_a_process_that_is_no_replica_tells_and_counts_none() -> None:
    async def ask() -> list[Message]:
        messages: list[Message] = []

        async def send(message: Message) -> None:
            messages.append(message)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001
            await send({"type": "http.response.start", "status": 200, "headers": []})

        async def nothing() -> Message:
            raise AssertionError

        await Admission(app, lambda: math.inf, nobody, proxied=True)(
            {"type": "http", "method": "POST", "headers": [(REFUSED, b"7")]}, nothing, send
        )
        return messages

    (start,) = asyncio.run(ask())
    assert start["headers"] == []


def test_refusals_of_a_flood_are_told_together_and_none_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    async def flood() -> list[int]:
        told: asyncio.Queue[int] = asyncio.Queue()

        class Counter:
            def __init__(self, name: str, about: str) -> None:
                assert name == "signalgraph_refused"
                assert about

            def inc(self, n: int) -> None:
                told.put_nowait(n)

        monkeypatch.setattr("deployments.metrics.Counter", Counter)
        metrics = IngressMetrics(also.append)
        for n in (1, 1, 40):
            metrics.refused(n)
        assert told.empty()
        first = await told.get()
        metrics.refused(1)
        return [first, await told.get()]

    also: list[int] = []
    assert asyncio.run(asyncio.wait_for(flood(), 10)) == [42, 1]
    assert also == [42, 1]


def test_a_process_that_is_no_replica_refuses_nobody() -> None:
    assert room() == math.inf


def test_ray_serve_is_told_of_it_and_its_server_accepts_all() -> None:
    environment = profile.environment({}, Ports(8000), RUN_DIR, "id", haproxy=True)
    module, _, name = environment["RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"].partition(":")
    assert (module, name) == (middlewares.__module__, middlewares.__name__)

    async def hooked() -> bool:
        middlewares()
        (middleware,) = middlewares()  # again: Ray tries another port when one is taken
        create = asyncio.get_running_loop().create_server
        made = middleware.cls(silent, *middleware.args, **middleware.kwargs)
        accepts = getattr(create, "__self__", None)
        assert isinstance(accepts, AcceptsAll)
        assert accepts._create_server.func is type(asyncio.get_running_loop()).create_server
        return isinstance(made, Admission)

    assert uvloop.run(hooked())
