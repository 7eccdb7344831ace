"""Waiting for a condition, and ports that nobody holds."""

import random
import time
from collections.abc import Callable

from deployments.ports import is_free

_NEVER_EPHEMERAL = range(20_000, 30_000)


def wait_for(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Return once the condition holds; fail with what `otherwise` says when it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.1)


def free_port() -> int:
    """A port on loopback that was free a moment ago, of those that the system gives to nobody by itself.

    An ephemeral one could be taken by any connection before the server that is to have it listens.
    """
    candidates = random.sample(_NEVER_EPHEMERAL, 100)
    return next(port for port in candidates if is_free(port))
