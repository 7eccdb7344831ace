"""Waiting for a condition, and ports that nobody holds."""

import socket
import time
from collections.abc import Callable
from contextlib import closing


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Return once the condition holds; fail with what `otherwise` says when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def free_port() -> int:
    """A port on loopback that was free a moment ago."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        port: int = server.getsockname()[1]
        return port
