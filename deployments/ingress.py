"""What is in front of every replica that answers HTTP, by the hook of Ray Serve that `deployments.profile` names.

Both things here let a flood of requests reach the limits of the graph, in place of queues where nothing counts it.
"""

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

_UNWATCHED = ((b"x-request-disconnect-disabled", b"?1"), (b"x-request-timeout-seconds", b"0"))
"""Headers of Ray Serve. First, so that what a client says itself has the last word."""

_Factory = Callable[[], asyncio.BaseProtocol]


class Unwatched:
    """Asks Ray Serve not to watch over POSTs, which are all requests for decisions.

    They are short and have a deadline of their own (`deadline_ms`), so two more tasks a request, for its client and
    its clock, are in vain. Without them Ray Serve counts a request against `max_queued_requests` before it yields.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        if scope["type"] == "http" and scope["method"] == "POST":
            scope["headers"] = [*_UNWATCHED, *scope["headers"]]
        await self._app(scope, receive, send)


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
    return [Middleware(Unwatched)]
