"""The monitor: a named actor that hears of every decision, from the reporter in each router.

The actor may die at any time: it takes its counts and alerts from the journal again, and the rest from the routers.

It outlives the application that first asked for it, so it goes by what each telling brings: the configuration of the
application that was built last. It ends when no router has told it anything for long.
"""

import asyncio
import logging
import math
import pickle
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import numpy as np
import ray

from deployments.metrics import MonitorMetrics
from deployments.replicas import Replicas, replicas
from serve_app.config import MonitorConfig
from serve_app.errors import MonitorUnavailable
from serve_app.journal import connect, is_same
from serve_app.monitor import Heard, Learnt, MonitorState, Told
from serve_app.schemas import encode
from serve_app.types import VariantName
from serve_app.watch import Watch
from serve_app.webhook import Webhook

# The version keeps routers of another release away from an actor whose messages they do not speak.
ACTOR_NAME = "signalgraph-monitor-v8"
NAMESPACE = "signalgraph"
FORSAKEN_S = 600.0
"""Without a word from any router: long enough for a graph to be deployed again over what the monitor knows."""
REPLICAS_S = 10.0
"""How old the count of replicas may be."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MonitorArgs:
    """What the monitor goes by."""

    built_at: datetime
    """When the application was that says so. Of two, the later is in force."""
    config: MonitorConfig
    journal: str | None = None
    """URL of the database; None: nothing outlives the actor."""
    asked: frozenset[VariantName] | None = None
    """Without a journal: the variants that answer somebody. With one, its ledger says so."""
    webhook_secret: str | None = field(default=None, repr=False)


def _end_this_actor() -> None:
    ray.kill(ray.get_runtime_context().current_actor)


class MonitorActor:
    """Owns the watch. Asynchronous, so that it answers while routers tell."""

    def __init__(self, forsaken_s: float = FORSAKEN_S) -> None:
        self._forsaken_s = forsaken_s
        self._webhook = Webhook(None, None)
        self._metrics = MonitorMetrics()
        self._args: MonitorArgs | None = None
        """What is in force; None until a router tells: an actor that Ray has started again knows nothing."""
        self._watch: Watch | None = None
        self._watching: asyncio.Task[None] | None = None
        self._posting: asyncio.Task[None] | None = None
        self._staying: asyncio.Task[None] | None = None
        self._told = asyncio.Event()
        self._counted_at = -math.inf
        self._counting: asyncio.Task[Replicas] | None = None

    async def push(self, packed: bytes, args: MonitorArgs) -> Heard:
        """Take in what one router has gathered, or what it had told before."""
        self._told.set()
        if self._staying is None:
            self._staying = asyncio.create_task(self._stay())
        in_force = self._follow(args)
        if not is_same(args.journal, in_force.journal):  # an application on its way out, whose journal counts elsewhere
            return Heard(is_new=False, lacking=())
        return self._watched.state.add(unpacked(packed))

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
        if args.journal is None:
            self._watched.state.asked = args.asked
        return args

    async def _stay(self) -> None:
        """End the process, for good, when no router tells any more: the next one that wants a monitor creates it."""
        with suppress(TimeoutError):
            while True:
                async with asyncio.timeout(self._forsaken_s):
                    await self._told.wait()
                self._told.clear()
        log.warning("the monitor ends: no router has told it anything for %g s", self._forsaken_s)
        _end_this_actor()

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

    async def view(self) -> bytes:
        """Return that with the latest decisions, for the dashboard: as JSON, since Ray would pickle every number."""
        return encode(self._watched.view())

    async def replicas(self) -> Replicas:
        """Return how many replicas each stage has: asked here, since it is dear, once for all routers."""
        if self._counting is None or time.monotonic() - self._counted_at >= REPLICAS_S:
            self._counted_at = time.monotonic()
            self._counting = asyncio.create_task(asyncio.to_thread(replicas))
        return await asyncio.shield(self._counting)

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


def monitor_actor(application: str, forsaken_s: float = FORSAKEN_S) -> Any:
    """Return the handle of an application's monitor, creating it when there is none; it outlives its creator.

    It ends when no router has told it anything for `forsaken_s` seconds.

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
    return ray.remote(**options)(MonitorActor).remote(forsaken_s)
