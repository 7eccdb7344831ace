"""The monitor: a named actor that hears of every answer, and the reporter in each router that tells it.

Reporting is free for the caller: observations go into a bounded buffer, a background task pushes what has gathered,
at most one push is outstanding, and what does not fit is dropped and counted.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError

from serve_app.config import MonitorConfig
from serve_app.errors import MonitorUnavailable, ServeAppError
from serve_app.monitor import Answered, MonitorState, Observations, answered, observe
from serve_app.types import Decision

# The version keeps routers of another release away from an actor whose messages they do not speak.
ACTOR_NAME = "signalgraph-monitor-v2"
NAMESPACE = "signalgraph"
TIMEOUT_S = 10.0
"""Long enough for the actor to start; whoever asks for a snapshot waits no longer."""

log = logging.getLogger(__name__)


class MonitorActor:
    """Owns the rolling state. Asynchronous, so that it answers while routers push."""

    def __init__(self, window: int) -> None:
        self._state = MonitorState(window)

    async def push(self, observations: Observations, dropped: int) -> None:
        """Take in what one router has gathered."""
        self._state.add(observations, dropped)

    async def snapshot(self) -> dict[str, Any]:
        """Return what `GET /v1/monitor` answers."""
        return self._state.snapshot()


def monitor_actor(application: str, config: MonitorConfig) -> Any:
    """Return the handle of an application's monitor, creating it when there is none; it outlives its creator.

    Untyped: Ray's type hints take the methods of an asynchronous actor for ones that never return.
    """
    options: dict[str, Any] = {
        "name": f"{ACTOR_NAME}-{application}",
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "num_cpus": 0,
    }
    return ray.remote(**options)(MonitorActor).remote(config.window)


class Reporter:
    """Tells the monitor what one router answered, off the request path."""

    def __init__(self, application: str, config: MonitorConfig) -> None:
        self._application = application
        self._config = config
        self._buffer: deque[Answered] = deque(maxlen=config.max_buffered)
        self._dropped = 0
        self._actor: Any = None
        self._pushing = asyncio.Lock()

    def record(self, answers: Sequence[Decision | ServeAppError], latency_ms: float) -> None:
        """Remember the answers of one call for the next push. Never waits, never raises."""
        room = self._config.max_buffered - len(self._buffer)
        self._dropped += max(0, len(answers) - room)
        self._buffer.extend(answered(answers, latency_ms))

    async def push_forever(self) -> None:
        """Push what has gathered, one push at a time, until cancelled."""
        while True:
            await asyncio.sleep(self._config.push_interval_ms / 1e3)
            try:
                await self.push()
            except (RayError, ValueError, TimeoutError) as error:
                log.warning("the monitor does not answer: %s", type(error).__name__)

    async def push(self) -> None:
        """Push once, if there is anything. What a failed push held is counted as dropped: it may have arrived."""
        async with self._pushing:
            n, dropped = len(self._buffer), self._dropped
            if not n and not dropped:
                return
            observations = observe(self._buffer)
            self._buffer.clear()
            self._dropped = 0
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await (await self._monitor()).push.remote(observations, dropped)
            except BaseException:
                self._dropped += dropped + n
                self._actor = None
                raise

    async def snapshot(self) -> dict[str, Any]:
        """Return the monitor's snapshot, with all that this router has answered in it. Raises MonitorUnavailable."""
        try:
            await self.push()
            async with asyncio.timeout(TIMEOUT_S):
                snapshot: dict[str, Any] = await (await self._monitor()).snapshot.remote()
                return snapshot
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise MonitorUnavailable(f"the monitor does not answer ({type(error).__name__}); try again") from error

    async def _monitor(self) -> Any:
        """Look the actor up, in a thread: Ray's control store may take its time."""
        if self._actor is None:
            self._actor = await asyncio.to_thread(monitor_actor, self._application, self._config)
        return self._actor
