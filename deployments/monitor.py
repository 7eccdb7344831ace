"""The monitor: a named actor that hears of every decision, and the reporter in each router that tells it.

Reporting is free for the caller: decisions go into a bounded buffer, a background task tells what has gathered, at most
one telling is outstanding, and what does not fit is dropped and counted. The actor may die at any time: it takes its
counts and alerts from the journal again, and the rest from the routers.

It outlives the application that first asked for it, so it goes by what each telling brings: the configuration of the
application that was built last.
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
from serve_app.journal import connect, is_same
from serve_app.model import Bundle
from serve_app.monitor import Gathering, Heard, Learnt, MonitorState, Told, memory_in_use
from serve_app.types import Bars
from serve_app.watch import Watch
from serve_app.webhook import Webhook

# The version keeps routers of another release away from an actor whose messages they do not speak.
ACTOR_NAME = "signalgraph-monitor-v6"
NAMESPACE = "signalgraph"
TIMEOUT_S = 10.0
"""Long enough for the actor to start, and one push takes no longer; nor does a question, with the pushes before it."""
HEARTBEAT_S = 1.0
"""How often a router tells although it has answered nothing: its memory, and that it is there."""
LONGEST_PAUSE_S = 4.0
"""Between two tellings of a router whose monitor is away."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MonitorArgs:
    """What the monitor goes by."""

    built_at: datetime
    """When the application was that says so. Of two, the later is in force."""
    config: MonitorConfig
    journal: str | None = None
    """URL of the database; None: nothing outlives the actor."""
    webhook_secret: str | None = field(default=None, repr=False)


class MonitorActor:
    """Owns the watch. Asynchronous, so that it answers while routers tell."""

    def __init__(self) -> None:
        self._webhook = Webhook(None, None)
        self._metrics = MonitorMetrics()
        self._args: MonitorArgs | None = None
        """What is in force; None until a router tells: an actor that Ray has started again knows nothing."""
        self._watch: Watch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._posting: asyncio.Task[None] | None = None

    async def push(self, packed: bytes, args: MonitorArgs, again: bool) -> Heard:
        """Take in what one router has gathered, or what it had told before."""
        in_force = self._follow(args)
        if not is_same(args.journal, in_force.journal):  # an application on its way out, whose journal counts elsewhere
            return Heard(is_new=False, lacking=())
        return self._watched.state.add(unpacked(packed), again)

    def _follow(self, args: MonitorArgs) -> MonitorArgs:
        """Go by what a router says, unless that was built earlier; return what is in force."""
        before = self._args
        if before is not None and args.built_at <= before.built_at:
            return before
        self._args = args
        self._post(args.config.alerts.webhook, args.webhook_secret)
        if before is None or args.journal != before.journal:
            self._begin(args)
        elif args.config != before.config:
            self._watched.configure(args.config.alerts)
            self._watched.state.resize(args.config.window)
        return args

    def _post(self, webhook: str | None, secret: str | None) -> None:
        self._webhook.aim(webhook, secret)
        if webhook is not None and self._posting is None:
            self._posting = asyncio.create_task(self._webhook.deliver_forever())

    def _begin(self, args: MonitorArgs) -> None:
        """Watch over a journal, with a state of its own: what has watched counts another, and two would count twice."""
        if self._watching is not None:
            log.warning("the monitor begins anew: the journal is another")
            self._watching.cancel()
        self._watch = Watch(
            MonitorState(args.config.window, np.random.default_rng(0)),
            args.config.alerts,
            partial(connect, args.journal) if args.journal else None,
            tell=self._webhook.offer,
            show=self._metrics.show,
        )
        self._watching = asyncio.create_task(self._watch.watch_forever())

    @property
    def _watched(self) -> Watch:
        if self._watch is None:
            raise MonitorUnavailable("the monitor has begun again, and no router has told it anything yet")
        return self._watch

    async def learn(self, digest: str, learnt: Learnt) -> None:
        """Take in what there is to know of a bundle."""
        self._watched.state.learn(digest, learnt)

    async def snapshot(self) -> dict[str, Any]:
        """Return what `GET /v1/monitor` answers."""
        return self._watched.snapshot()

    async def view(self) -> dict[str, Any]:
        """Return that with the latest decisions, for the dashboard."""
        return self._watched.view()

    async def replicas(self) -> Replicas:
        """Return how many replicas each stage has: asked here, since it is dear, and no request waits for it here."""
        return await asyncio.to_thread(replicas)

    async def chart(self, symbol: str) -> dict[str, Any]:
        """Return the latest bars of a symbol, and what was decided at them."""
        return self._watched.state.tape.chart(symbol)


def packed(told: Told) -> bytes:
    """Return what to send: Ray itself would ask Python about every object in it, and take three times as long."""
    return pickle.dumps(told, pickle.HIGHEST_PROTOCOL)


def unpacked(packed: bytes) -> Told:
    """Return what was sent, by a router of this graph: as Ray itself would."""
    told: Told = pickle.loads(packed)  # noqa: S301
    return told


def monitor_actor(application: str) -> Any:
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
    return ray.remote(**options)(MonitorActor).remote()


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
                    heard: Heard = await actor.push.remote(packed(told), self._args, False)
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
            await actor.push.remote(packed(past), self._args, True)

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
            async with asyncio.timeout(TIMEOUT_S):
                await self.push_all()
                answer: dict[str, Any] = await getattr(await self._monitor(), what).remote(*about)
                return answer
        except (RayError, ValueError, TimeoutError) as error:
            self._actor = None
            raise MonitorUnavailable(f"the monitor does not answer ({type(error).__name__}); try again") from error

    async def _monitor(self) -> Any:
        """Look the actor up, in a thread: Ray's control store may take its time."""
        if self._actor is None:
            self._actor = await asyncio.to_thread(monitor_actor, self._application)
        return self._actor
