"""The router: the ingress deployment. It alone gathers batches, calls the stages in turn and answers HTTP."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments.bundles import Shelf
from deployments.keys import Keys
from deployments.lanes import Lanes
from deployments.metrics import ShadowMetrics
from deployments.monitor import MonitorArgs
from deployments.releases import Follower, ledger_of, service_of
from deployments.replicas import stages as stages_of
from deployments.reporter import Reporter
from deployments.stages import StageHandles
from serve_app.api import Front, Past, create_api
from serve_app.config import AppConfig, RouterTuning, parse_section
from serve_app.dashboard import Sources
from serve_app.documentation import examples_of
from serve_app.errors import ConfigError
from serve_app.evidence import Experiments
from serve_app.journal import Journal
from serve_app.once import Once
from serve_app.parity import golden_requests
from serve_app.router.releases import Release
from serve_app.shadow import Shadow

PROVE_INTERVAL_S = 0.5
_COLLECT_AFTER = 100_000
"""Objects more than there were; a collection looks at all of them, for tens of milliseconds in which every request
waits. Requests make a dozen in a second that it would have to free, and a thousand requests under way hold as many as
this: with Python's 700, or with 10,000, a flood is collected again and again, and nothing is found."""

log = logging.getLogger(__name__)


def _spare_the_collector() -> None:
    """Let the garbage collector run seldom: what a request allocates is freed when it is answered, with no cycle."""
    gc.freeze()  # what is there now stays for good
    gc.set_threshold(_COLLECT_AFTER, 10, 10)


class RouterDeployment:
    """Holds the signal service and serves its API. The two handles are given in the staged topology only.

    `built_at`: when the application was; the monitor, which outlives it, goes by the latest.
    """

    def __init__(
        self,
        config: AppConfig,
        shelf: Shelf,
        seed: Release,
        keys: Keys,
        built_at: datetime,
        preprocess: DeploymentHandle[Any] | None = None,
        strategy: DeploymentHandle[Any] | None = None,
    ) -> None:
        self._config = config
        self._keys = keys
        handles = StageHandles(preprocess, strategy) if preprocess and strategy else None
        context = serve.get_replica_context()
        self._application = context.app_name
        self._lanes = Lanes(config, shelf, handles, context.replica_tag)
        self._journal = Journal(config.journal) if config.journal else None
        self._shadow = Shadow(self._journal.keep_shadows, ShadowMetrics().dropped) if self._journal else None
        self._follower = self._following(self._journal, self._shadow, seed) if self._journal and self._shadow else None
        self._service = self._follower.current if self._follower else service_of(self._lanes, seed)
        journal = config.journal.url if config.journal else None
        asked = None if journal else seed.assignment.asked
        monitor, lanes = MonitorArgs(built_at, config.monitor, journal, asked, keys.webhook), self._lanes
        self._reporter = Reporter(context.app_name, context.replica_tag, monitor, lanes.bundle, lanes.memory)
        self._tasks: list[asyncio.Task[None]] = []
        self._serves = False
        _spare_the_collector()

    def _following(self, journal: Journal, shadow: Shadow, seed: Release) -> Follower:
        ledger = ledger_of(journal, self._lanes)
        return Follower(ledger, self._lanes, seed, journal.follow_s, journal.keep, shadow.offer)

    def _past(self) -> Past | None:
        if self._journal is None or self._follower is None:
            return None
        return Past(self._journal.find, self._follower.replayer(self._journal), self._journal.report)

    def _experiments(self) -> Experiments | None:
        return self._follower.experiments(self._journal) if self._journal and self._follower else None

    def _sources(self) -> Sources:
        async def stages() -> dict[str, Any]:
            return stages_of(await self._reporter.replicas(), self._application, self._lanes.places())

        return Sources(
            topology=self._config.topology,
            monitor=self._reporter.view,
            chart=self._reporter.chart,
            stages=stages,
            readiness=self._service.readiness,
        )

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take what may change while the router serves; one that serves keeps what it had in place of what is wrong.

        Raises ConfigError before that: Ray Serve stops a replica whose `reconfigure` raises, and starts no other.
        """
        try:
            tuning = parse_section(RouterTuning, user_config, "router.user_config")
        except ConfigError as error:
            if not self._serves:
                raise
            log.error("this router goes on with what it had: %s", error)  # noqa: TRY400  the message says it all
            return
        self._lanes.tune(tuning.batching)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that Ray Serve shall serve, once the replica is constructed."""
        pipeline = self._service.now.production
        bundle = pipeline.bundle
        unit = bundle.config.strategy.holding_unit
        return create_api(
            Front(
                service=self._service,
                config=self._config.router,
                examples=examples_of(golden_requests(bundle.golden, pipeline.feature_set, unit)),
                record=self._reporter.record,
                monitor=self._reporter.snapshot,
                api_key_hashes=self._keys.asking,
                past=self._past(),
                once=Once(self._service, self._journal) if self._journal else None,
                experiments=self._experiments(),
                control=self._follower.control() if self._follower else None,
                control_key_hash=self._keys.control,
                dashboard=self._sources(),
                lifespan=self._lifespan,
            )
        )

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the background work for as long as the replica serves.

        Ray Serve sends requests once this has begun. A router that joins a running graph is proven by then, and
        abstains from nothing; one whose stages do not answer yet starts all the same, and says at /ready what it lacks.
        """
        await self._service.prove()
        reporter = self._reporter
        work = [self._prove(), reporter.push_forever(), reporter.look_forever(), reporter.write_forever()]
        if self._follower:
            work.append(self._follower.follow_forever())
        if self._follower and self._journal:
            roll_back = self._config.monitor.alerts.roll_back
            work.append(self._follower.guard(self._journal, self._reporter.snapshot, roll_back).watch_forever())
        if self._shadow:
            work.append(self._shadow.score_forever())
        if self._journal:
            work.append(self._journal.ship_forever())
        self._tasks = [asyncio.create_task(one) for one in work]
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._reporter.close()
        if self._journal:
            await self._journal.close()

    def refused(self, code: str, n: int) -> None:
        """Let the monitor count requests that never came here, see `deployments.ingress`."""
        self._reporter.refused(code, n)

    def check_health(self) -> None:
        """Fail when background work has died or a forward pass never comes back; Ray Serve then replaces the replica.

        Asks no other deployment.
        """
        self._serves = True  # Ray Serve asks the first time when it has configured the replica
        self._lanes.check_health()
        for task in self._tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error

    async def _prove(self) -> None:
        """Let every variant that has not reproduced its golden cases try again; a new release may bring such ones."""
        while True:
            await asyncio.sleep(PROVE_INTERVAL_S)
            if not await self._service.prove():
                log.warning("not ready: %s", self._service.readiness())
