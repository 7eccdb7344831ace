"""What is in front of every replica that answers HTTP, by the hook of Ray Serve that `deployments.profile` names.

Both things here let a flood of requests reach the limits of the graph, in place of queues where nothing counts it.
"""

import asyncio
import math
import os
import socket
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Protocol, runtime_checkable

from ray import serve
from ray.serve.exceptions import RayServeException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.metrics import IngressMetrics
from deployments.profile import haproxy_is_ours
from serve_app.api.responses import error_id, new_request_id, respond_unread
from serve_app.errors import RouterFull
from serve_app.schemas import REQUEST_ID, encode

_UNWATCHED = ((b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0"))
"""Headers of Ray Serve. First, so that what a client says itself has the last word."""

_REQUEST_ID = REQUEST_ID.lower().encode()
_TAKES, _REFUSED = b"x-signalgraph-takes", b"x-signalgraph-refused"
"""Between routers and their HAProxy (`backend.sed`), which lets no client say or see them."""
FULL = "this router has as many requests as it takes; try again in a second"
"""What clients are told, by HAProxy too (`backend.sed`)."""
_TELL_EACH = 64
"""Of the answers to POSTs, the first among so many says what a router takes."""

_Factory = Callable[[], asyncio.BaseProtocol]


@runtime_checkable
class CountsRefusals(Protocol):
    """What is told of those that were not let in to it."""

    def refused(self, code: str, n: int) -> None:
        """Count some."""


class Admission:
    """Takes as many POSTs as Ray Serve works on at once, and refuses the others, so that no flood waits in Ray's queue.

    Only as many wait there as GETs and streams of the dashboard are under way, which have places with Ray Serve too.

    What is too much for that queue, Ray Serve refuses after it has looked up a route, made ids and a context, with a
    line of text. In a flood that is most of what a router does, and those that were taken wait for it. It also refuses
    too much: who leaves the queue counts as waiting until the event loop's next turn.

    POSTs are requests for decisions: short, with a deadline of their own (`deadline_ms`). So two more tasks for each,
    for its client and its clock, are in vain, and Ray Serve is asked to do without.

    Our own HAProxy refuses what all routers together have no room for: it is told the room, and tells how many it has
    refused, which are counted here with the others.
    """

    def __init__(
        self, app: ASGIApp, room: Callable[[], float], refused: Callable[[int], None], proxied: bool = False
    ) -> None:
        """`room`: POSTs that may be under way at once; `refused` counts some; `proxied`: by our own HAProxy."""
        self._app = app
        self._room = room
        self._refused = refused
        self._proxied = proxied
        self._refusal = _Refusal()
        self._asked = 0
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._proxied:
            self._refused_before(scope["headers"])
        if scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        if self._proxied:
            send = self._telling(send)
        if self._under_way >= self._room():
            self._refused(1)
            await self._refusal(scope, receive, send)
            return
        scope["headers"] = [*_UNWATCHED, *scope["headers"]]
        self._under_way += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._under_way -= 1

    def _refused_before(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        for name, value in headers:
            # The fallback's proxy is no replica, whose monitor would count them.
            if name == _REFUSED and value.isdigit() and self._room() < math.inf:
                self._refused(int(value))

    def _telling(self, send: Send) -> Send:
        """Have some of the answers say how many requests this router takes."""
        tells, self._asked = self._asked % _TELL_EACH == 0, self._asked + 1
        if not tells or self._room() == math.inf:
            return send

        async def telling(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (_TAKES, b"%d" % self._room())]}
            await send(message)

        return telling


class _Refusal:
    """Says no in the shape of every error; put together once, for in a flood a router says little else."""

    def __init__(self) -> None:
        request_id = new_request_id()
        error = RouterFull(FULL, retry_after_s=1)
        response = respond_unread(request_id, error)
        self._before, self._after = bytes(response.body).split(encode(request_id))
        self._headers = [header for header in response.raw_headers if header[0] != b"content-length"]
        self._status = response.status_code

    async def __call__(self, scope: Scope, _: Receive, send: Send) -> None:
        """Answer under the request's own id, in the header too, as Ray Serve does with all that pass."""
        request_id = error_id(Request(scope))
        body = self._before + encode(request_id) + self._after
        own = ((b"content-length", b"%d" % len(body)), (_REQUEST_ID, request_id.encode()))
        await send({"type": "http.response.start", "status": self._status, "headers": [*self._headers, *own]})
        await send({"type": "http.response.body", "body": body})


def room() -> float:
    """Return how many requests Ray Serve works on at once in this replica; without end in a process that is none."""
    try:
        config = serve.get_replica_context()._deployment_config  # noqa: SLF001  it says so nowhere else
    except RayServeException:
        return math.inf
    return float(config.max_ongoing_requests)


def _tell_replica(refused: int) -> None:
    """Let what this replica serves know, so that a router's monitor counts them, too."""
    served: object = serve.get_replica_context().servable_object
    if isinstance(served, CountsRefusals):
        served.refused(RouterFull.code, refused)


class AcceptsAll:
    """Accepts every connection that waits when one does, as asyncio's own loop has always done.

    libuv, and so uvloop, accepts one a turn of the loop (libuv PR 3696). A turn under load takes tens of milliseconds:
    hundreds of new connections of HAProxy, each with its request, would wait in the kernel for many seconds.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        # The class's, so that a loop which has been given this already (Ray tries port after port) gets it once.
        self._create_server = partial(type(loop).create_server, loop)
        self._opening: set[asyncio.Task[Any]] = set()

    async def create_server(self, factory: _Factory, *args: Any, sock: socket.socket | None = None, **kw: Any) -> Any:
        """Do what the loop does; `sock` is the listening socket, if there is one already."""
        if sock is None:
            return await self._create_server(factory, *args, **kw)

        def first() -> asyncio.BaseProtocol:
            self._loop.call_soon(self._rest, factory, sock)
            return factory()

        return await self._create_server(first, *args, sock=sock, **kw)

    def _rest(self, factory: _Factory, sock: socket.socket) -> None:
        while True:
            try:
                connection, _ = sock.accept()
            except OSError:  # nobody waits any more (BlockingIOError), or the server has closed
                return
            task = self._loop.create_task(self._loop.connect_accepted_socket(factory, connection))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)


def middlewares() -> list[Middleware]:
    """Return what Ray Serve asks for in the loop of a replica, before it listens there."""
    loop = asyncio.get_running_loop()
    loop.create_server = AcceptsAll(loop).create_server  # type: ignore[assignment, method-assign]
    return [Middleware(Admission, room, IngressMetrics(_tell_replica).refused, proxied=haproxy_is_ours(os.environ))]
