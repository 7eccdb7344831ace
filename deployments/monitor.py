"""The monitor: a named actor that hears of every decision, and the reporter in each router that tells it.

Reporting is free for the caller: decisions go into a bounded buffer, a background task tells what has gathered, at most
one telling is outstanding, and what does not fit is dropped and counted. The actor may die at any time: it takes its
counts and alerts from the journal again, and the rest from the routers.
"""

import asyncio
import logging
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

import numpy as np
import ray
from ray.exceptions import RayError

from deployments.metrics import MonitorMetrics
from deployments.replicas import Replicas, replicas
from serve_app.api import Call
from serve_app.config import MonitorConfig
from serve_app.decision_log import DecisionLog, Given
from serve_app.errors import MonitorUnavailable, ServeAppError
from serve_app.journal import connect
from serve_app.model import Bundle
from serve_app.monitor import Gathering, Heard, Learnt, MonitorState, Told, memory_in_use
from serve_app.types import Bars
from serve_app.watch import Watch
from serve_app.webhook import Webhook

# The version keeps routers of another release away from an actor whose messages they do not speak.
ACTOR_NAME = "signalgraph-monitor-v6"
NAMESPACE = "signalgraph"
TIMEOUT_S = 10.0
"""Long enough for the actor to start; whoever asks for a snapshot waits no longer."""
HEARTBEAT_S = 1.0
"""How often a router tells although it has answered nothing: its memory, and that it is there."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MonitorArgs:
    """What an actor is made of."""

    config: MonitorConfig
    journal: str | None = None
    """URL of the database; None: nothing outlives the actor."""
    webhook_secret: str | None = field(default=None, repr=False)


class MonitorActor:
    """Owns the watch. Asynchronous, so that it answers while routers tell."""

    def __init__(self, args: MonitorArgs) -> None:
        alerts = args.config.alerts
        self._webhook = Webhook(alerts.webhook, args.webhook_secret) if alerts.webhook else None
        self._watch = Watch(
            MonitorState(args.config.window, np.random.default_rng(0)),
            alerts,
            partial(connect, args.journal) if args.journal else None,
            tell=self._webhook.offer if self._webhook else lambda _: None,
            show=MonitorMetrics().show,
        )
        self._tasks: list[asyncio.Task[None]] = []

    def _begin(self) -> None:
        """Start the background work with the first call: there is no loop before."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._watch.watch_forever())]
            if self._webhook is not None:
                self._tasks.append(asyncio.create_task(self._webhook.deliver_forever()))

    async def push(self, packed: bytes, again: bool) -> Heard:
        """Take in what one router has gathered, or what it had told before."""
        self._begin()
        return self._watch.state.add(unpacked(packed), again)

    async def learn(self, digest: str, learnt: Learnt) -> None:
        """Take in what there is to know of a bundle."""
        self._watch.state.learn(digest, learnt)

    async def snapshot(self) -> dict[str, Any]:
        """Return what `GET /v1/monitor` answers."""
        self._begin()
        return self._watch.snapshot()

    async def view(self) -> dict[str, Any]:
        """Return that with the latest decisions, for the dashboard."""
        self._begin()
        return self._watch.view()

    async def replicas(self) -> Replicas:
        """Return how many replicas each stage has: asked here, since it is dear, and no request waits for it here."""
        return await asyncio.to_thread(replicas)

    async def chart(self, symbol: str) -> dict[str, Any]:
        """Return the latest bars of a symbol, and what was decided at them."""
        return self._watch.state.tape.chart(symbol)


def packed(told: Told) -> bytes:
    """Return what to send: Ray itself would ask Python about every object in it, and take three times as long."""
    return pickle.dumps(told, pickle.HIGHEST_PROTOCOL)


def unpacked(packed: bytes) -> Told:
    """Return what was sent, by a router of this graph: as Ray itself would."""
    told: Told = pickle.loads(packed)  # noqa: S301
    return told


def monitor_actor(application: str, args: MonitorArgs) -> Any:
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
    return ray.remote(**options)(MonitorActor).remote(args)


class Reporter:
    """Tells the monitor what one router answered, off the request path."""

    def __init__(self, application: str, router: str, args: MonitorArgs, bundle: Callable[[str], Bundle]) -> None:
        """`bundle` returns a bundle by its digest."""
        self._application = application
        self._args = args
        self._bundle = bundle
        self._gathering = Gathering(router, args.config.max_buffered, memory_in_use)
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
        """Push what has gathered, one push at a time, until cancelled."""
        away = False
        while True:
            await asyncio.sleep(self._args.config.push_interval_ms / 1e3)
            if not self._gathering.waits and asyncio.get_running_loop().time() - self._told_at < HEARTBEAT_S:
                continue
            try:
                await self.push()
            except (RayError, ValueError, TimeoutError) as error:
                if not away:
                    log.warning("the monitor does not answer: %s", type(error).__name__)
                away = True
            except Exception:  # whatever it was: reporting that ended would take its router with it
                log.exception("the monitor could not be told")
            else:
                away = False

    async def write_forever(self) -> None:
        """Write the decision log, until cancelled: not with the pushes, so that a slow disk keeps none back."""
        if self._log is not None:
            await self._log.write_forever(self._args.config.push_interval_ms / 1e3)

    async def close(self) -> None:
        """Write down what was answered last."""
        if self._log is not None:
            await asyncio.to_thread(self._log.close)

    async def push(self) -> None:
        """Push once. What fails is pushed again with the next: the monitor counts a decision once."""
        async with self._pushing:
            told = self._gathering.take()
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    actor = await self._monitor()
                    heard: Heard = await actor.push.remote(packed(told), False)
                    await self._answer(actor, heard)
            except BaseException:
                self._gathering.failed()
                self._actor = None
                raise
            self._gathering.arrived()
            self._told_at = asyncio.get_running_loop().time()

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
            await actor.push.remote(packed(past), True)

    async def snapshot(self) -> dict[str, Any]:
        """Return the monitor's snapshot, with all that this router has answered in it. Raises MonitorUnavailable."""
        return await self._asked("snapshot")

    async def view(self) -> dict[str, Any]:
        """Return that with the latest decisions. Raises MonitorUnavailable."""
        return await self._asked("view")

    async def chart(self, symbol: str) -> dict[str, Any]:
        """Return the latest bars of a symbol, and what was decided at them. Raises MonitorUnavailable."""
        return await self._asked("chart", symbol)

    async def replicas(self) -> Replicas:
        """Return how many replicas each stage of each application has. Raises MonitorUnavailable."""
        return await self._asked("replicas")

    async def _asked(self, what: str, *about: str) -> dict[str, Any]:
        try:
            await self.push()
            async with asyncio.timeout(TIMEOUT_S):
                answer: dict[str, Any] = await getattr(await self._monitor(), what).remote(*about)
                return answer
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise MonitorUnavailable(f"the monitor does not answer ({type(error).__name__}); try again") from error

    async def _monitor(self) -> Any:
        """Look the actor up, in a thread: Ray's control store may take its time."""
        if self._actor is None:
            self._actor = await asyncio.to_thread(monitor_actor, self._application, self._args)
        return self._actor
