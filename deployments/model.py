"""The model stage of one variant as a deployment, an application of its own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from deployments.autoscaling import Backlog
from deployments.bundles import BundleRef
from deployments.hop import Hop
from deployments.metrics import ModelMetrics
from serve_app.config import ModelAppConfig
from serve_app.parity import check_golden
from serve_app.pipeline import ByDigest, Pipeline, model_of, stages_of
from serve_app.types import PredictionBatch, WindowBatch


class ModelDeployment(Hop):
    """Turns windows into predictions. A replica that does not reproduce its golden cases never starts."""

    def __init__(self, ref: BundleRef, config: ModelAppConfig) -> None:
        super().__init__()
        bundle = ref.load()
        self._model = model_of(bundle, config.model, ModelMetrics(config.variant).out_of_memory)
        self._run = ByDigest({ref.digest: self._model}).run
        stages = stages_of(bundle, self._run)
        # Ray Serve constructs replicas inside an event loop, in which another one may not run.
        with ThreadPoolExecutor(1) as pool:
            pool.submit(asyncio.run, check_golden(Pipeline(bundle, stages))).result()

    async def run(self, batch: WindowBatch, backlog: Backlog) -> PredictionBatch:
        """See `serve_app.model.stage.Model.run`."""
        self.called(len(batch), backlog)
        return await self._run(batch)

    def check_health(self) -> None:
        """Fail when a forward pass never comes back; Ray Serve then replaces the replica."""
        self._model.check_health()
