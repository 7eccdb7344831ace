"""The reporter in each router: tells the monitor what was asked and answered, and asks it for those who look.

Reporting is free for the caller: decisions go into a bounded buffer, a background task tells what has gathered, at most
one telling is outstanding, and what does not fit is dropped and counted.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, cast

from orjson import Fragment
from ray.exceptions import RayError

from deployments.monitor import MonitorArgs, monitor_actor, packed
from deployments.node import memory_of_node
from deployments.replicas import Replicas
from serve_app.api import Call
from serve_app.decision_log import DecisionLog, Given
from serve_app.errors import MonitorUnavailable, ServeAppError
from serve_app.model import Bundle
from serve_app.monitor import Gathering, Heard, Learnt
from serve_app.types import Bars

TIMEOUT_S = 10.0
"""Long enough for the actor to start, and one push takes no longer; nor does a question, with the pushes before it."""
HEARTBEAT_S = 1.0
"""How often a router tells although it has answered nothing: its memory, and that it is there."""
LOOK_S = 10.0
"""Between two looks at the memory of nodes where stages are."""
LONGEST_PAUSE_S = 4.0
"""Between two tellings of a router whose monitor is away."""

log = logging.getLogger(__name__)


class Reporter:
    """Tells the monitor what one router answered, off the request path."""

    def __init__(
        self,
        application: str,
        router: str,
        args: MonitorArgs,
        bundle: Callable[[str], Bundle],
        memory: Callable[[], Awaitable[Mapping[str, float]]],
    ) -> None:
        """`bundle` returns a bundle by its digest; `memory` says how full the nodes of stages elsewhere are."""
        self._application = application
        self._args = args
        self._bundle = bundle
        self._memory = memory
        self._elsewhere: Mapping[str, float] = {}
        self._gathering = Gathering(router, args.config.max_buffered, self._memory_in_use)
        logged = args.config.log
        self._log = DecisionLog(logged, lambda digest: bundle(digest).config.feature_list) if logged else None
        self._actor: Any = None
        self._pushing = asyncio.Lock()
        self._told_at = 0.0

    def record(self, call: Call) -> None:
        """Remember what was asked and answered with one call. Never waits, never raises."""
        self._gathering.record(call.answers, call.latency_ms)
        for request in call.decided:
            if isinstance(request.history, Bars):
                self._gathering.see(request.symbol, request.history)
        if self._log is not None:
            now = datetime.now(UTC)
            self._log.add(Given(now, call.request_id, answer, call.latency_ms) for answer in call.answers)

    def refused(self, code: str, n: int) -> None:
        """Remember requests that were refused unread."""
        self._gathering.refused(code, n)

    async def push_forever(self) -> None:
        """Push what has gathered, one push at a time, until cancelled: ever more seldom while the monitor is away."""
        interval_s = pause_s = self._args.config.push_interval_ms / 1e3
        away = False
        while True:
            await asyncio.sleep(pause_s)
            if not self._gathering.waits and asyncio.get_running_loop().time() - self._told_at < HEARTBEAT_S:
                continue
            try:
                await self.push_all()
            except (RayError, ValueError, TimeoutError) as error:
                if not away:
                    log.warning("the monitor does not answer: %s", type(error).__name__)
                away = True
            except Exception:  # whatever it was: reporting that ended would take its router with it
                log.exception("the monitor could not be told")
                away = True
            else:
                away = False
            pause_s = max(interval_s, min(2 * pause_s, LONGEST_PAUSE_S)) if away else interval_s

    async def look_forever(self) -> None:
        """Ask how full the nodes of stages elsewhere are, until cancelled."""
        while True:
            try:
                self._elsewhere = await self._memory()
            except Exception:  # as above
                log.exception("nobody says how full the nodes of stages elsewhere are")
            await asyncio.sleep(LOOK_S)

    def _memory_in_use(self) -> dict[str, float]:
        return {**self._elsewhere, **memory_of_node()}

    async def write_forever(self) -> None:
        """Write the decision log, until cancelled: not with the pushes, so that a slow disk keeps none back."""
        if self._log is not None:
            await self._log.write_forever(self._args.config.push_interval_ms / 1e3)

    async def close(self) -> None:
        """Write down what was answered last."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    async def push_all(self) -> None:
        """Push until nothing waits. Each push holds the event loop for a short while only; others have it between."""
        while not await self.push():
            pass

    async def push(self) -> bool:
        """Push once; return whether nothing waited beside what was taken.

        What fails is pushed again with the next: the monitor counts a decision once.
        """
        async with self._pushing:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    actor = await self._monitor()
                    told = self._gathering.take()
                    is_all = not self._gathering.waits
                    heard: Heard = await actor.push.remote(packed(told), self._args)
                    await self._answer(actor, heard)
            except BaseException:
                self._gathering.failed()
                self._actor = None
                raise
            self._gathering.arrived()
            self._told_at = asyncio.get_running_loop().time()
            return is_all

    async def _answer(self, actor: Any, heard: Heard) -> None:
        """Tell the monitor what it lacks."""
        for digest in heard.lacking:
            try:
                bundle = await asyncio.to_thread(self._bundle, digest)
            except ServeAppError as error:  # a folder that has gone since it was loaded
                log.warning("drift of %s is not watched: %s", digest, error)
                await actor.learn.remote(digest, Learnt(digest))
            else:
                label, threshold = bundle.config.label, bundle.config.strategy.signal_threshold
                learnt = Learnt(bundle.version, bundle.reference, label.horizon_bars, threshold)
                await actor.learn.remote(digest, learnt)
        if heard.is_new and (past := self._gathering.past()).decisions:
            await actor.push.remote(packed(past), self._args)

    async def snapshot(self) -> dict[str, Any]:
        """Return the monitor's snapshot, with all that this router has answered in it. Raises MonitorUnavailable."""
        return cast("dict[str, Any]", await self._asked("snapshot", with_all=True))

    async def view(self) -> Fragment:
        """Return what it knew of late, with the latest decisions, as JSON for a document. Raises MonitorUnavailable."""
        return Fragment(await self._asked("view"))

    async def chart(self, symbol: str) -> dict[str, Any]:
        """Return the latest bars of a symbol, and what was decided at them. Raises MonitorUnavailable."""
        return cast("dict[str, Any]", await self._asked("chart", symbol))

    async def replicas(self) -> Replicas:
        """Return how many replicas each stage of each application has. Raises MonitorUnavailable."""
        return cast("Replicas", await self._asked("replicas"))

    async def _asked(self, what: str, *about: str, with_all: bool = False) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                if with_all:
                    await self.push_all()
                return await getattr(await self._monitor(), what).remote(*about)
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise MonitorUnavailable(f"the monitor does not answer ({type(error).__name__}); try again") from error

    async def _monitor(self) -> Any:
        """Look the actor up, in a thread: Ray's control store may take its time."""
        if self._actor is None:
            self._actor = await asyncio.to_thread(monitor_actor, self._application)
        return self._actor
