"""The router: the ingress deployment. It alone gathers batches, calls the stages in turn and answers HTTP."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.types import ASGIApp

from deployments.autoscaling import Backlog
from deployments.batching import Batcher, Limits, Sent
from deployments.bundles import BundleRef
from deployments.metrics import BatchMetrics
from deployments.monitor import Reporter
from deployments.stages import StageHandles, make_stages
from serve_app.api import Front, create_api
from serve_app.config import AppConfig, BatchingConfig, RouterTuning, VariantConfig, parse_section
from serve_app.documentation import examples_of
from serve_app.model import Bundle
from serve_app.parity import golden_requests
from serve_app.pipeline import Pipeline
from serve_app.router import Assignment
from serve_app.service import Lane, SignalService
from serve_app.types import VariantName

PROVE_INTERVAL_S = 0.5
_COLLECT_AFTER = 50_000
"""Objects, some 10 MB. Python's 700 are the lists of some 20 requests, so that it would collect 100 times a second."""

log = logging.getLogger(__name__)


def _limits(variant: VariantConfig, batching: BatchingConfig) -> Limits:
    """Give one variant a queue and a deadline of its own."""
    return Limits(
        max_batch_size=batching.max_batch_size,
        max_in_flight=batching.max_in_flight,
        max_queued_rows=variant.max_queued_rows,
        deadline_s=variant.deadline_ms / 1e3,
        max_queue_s=(variant.max_queue_ms or variant.deadline_ms / 2) / 1e3,
        max_wait_s=batching.max_wait_ms / 1e3,
    )


def _spare_the_collector() -> None:
    """Let the garbage collector run seldom: what a request allocates is freed when it is answered, with no cycle."""
    gc.freeze()  # what is there now stays for good
    gc.set_threshold(_COLLECT_AFTER, 10, 10)


class VariantLane:
    """One variant in this router: its pipeline, the batcher in front of it, and what both tell others."""

    def __init__(
        self, config: AppConfig, name: VariantName, bundle: Bundle, handles: StageHandles | None, router: str
    ) -> None:
        self._config = config.variants.configured()[name]
        self._sender = f"{router}/{name}"
        self._metrics = BatchMetrics(name)
        self.pipeline = Pipeline(bundle, make_stages(config, name, bundle, handles, self._backlog))
        limits = _limits(self._config, config.router.batching)
        self.batcher = Batcher(self.pipeline.run, self.pipeline.abstain, limits, self._sent)

    def _backlog(self) -> Backlog:
        return Backlog(self._sender, self.batcher.outstanding)

    def _sent(self, batch: Sent) -> None:
        self._metrics.sent(batch, self.batcher.outstanding)

    def tune(self, batching: BatchingConfig) -> None:
        """Gather rows by other limits from the next batch on."""
        self.batcher.limits = _limits(self._config, batching)


class RouterDeployment:
    """Holds the signal service and serves its API. The two handles are given in the staged topology only."""

    def __init__(
        self,
        config: AppConfig,
        bundles: Mapping[VariantName, BundleRef],
        api_key_hashes: Collection[str],
        preprocess: DeploymentHandle[Any] | None = None,
        strategy: DeploymentHandle[Any] | None = None,
    ) -> None:
        self._config = config
        self._api_key_hashes = api_key_hashes
        handles = StageHandles(preprocess, strategy) if preprocess and strategy else None
        context = serve.get_replica_context()
        self._lanes = {
            name: VariantLane(config, name, bundles[name].load(), handles, context.replica_tag)
            for name in config.variants.configured()
        }
        lanes = {name: Lane(lane.pipeline, lane.batcher.submit) for name, lane in self._lanes.items()}
        assignment = config.router.assignment
        self._service = SignalService(lanes, Assignment(assignment.candidate_share, assignment.salt, assignment.pins))
        self._reporter = Reporter(context.app_name, config.monitor)
        self._tasks: list[asyncio.Task[None]] = []
        _spare_the_collector()

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Take what may change while the router serves. Raises ConfigError: the replica keeps what it had."""
        tuning = parse_section(RouterTuning, user_config, "router.user_config")
        for lane in self._lanes.values():
            lane.tune(tuning.batching)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Return the application that Ray Serve shall serve, once the replica is constructed."""
        pipeline = self._service.production
        bundle = pipeline.bundle
        unit = bundle.config.strategy.holding_unit
        return create_api(
            Front(
                service=self._service,
                config=self._config.router,
                feature_list=bundle.config.feature_list,
                examples=examples_of(golden_requests(bundle.golden, pipeline.feature_set, unit)),
                record=self._reporter.record,
                monitor=self._reporter.snapshot,
                api_key_hashes=self._api_key_hashes,
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
        self._tasks = [asyncio.create_task(self._prove()), asyncio.create_task(self._reporter.push_forever())]
        yield
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def check_health(self) -> None:
        """Fail when background work has died; Ray Serve then replaces the replica. Asks no other deployment."""
        for task in self._tasks:
            if task.done() and (error := task.exception()) is not None:
                raise error

    async def _prove(self) -> None:
        """Reproduce the golden cases through the stages, again and again until all variants have."""
        while not await self._service.prove():
            log.warning("not ready: %s", self._service.readiness())
            await asyncio.sleep(PROVE_INTERVAL_S)
