"""The application of a model that is as slow as the sentiment of its rows says."""

import asyncio
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.autoscaling import Backlog
from deployments.bundles import Shelf
from deployments.model import ModelDeployment
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.config import ModelAppConfig

SLOW_S = {0.1: 0.6, 0.2: 3.0}
"""Sentiment → seconds. The second is longer than any deadline of the tests."""
SLOW, HANGS = SLOW_S


class SlowOnDemand(ModelDeployment):
    """The real model, later."""

    async def run(self, batch: WindowBatch, backlog: Backlog) -> PredictionBatch:
        # Scaled, a sentiment is the value less 0.5.
        sentiments = {round(0.5 + float(value), 3) for value in batch.windows[:, -1, -3]}
        await asyncio.sleep(max(SLOW_S.get(one, 0.0) for one in sentiments))
        return await super().run(batch, backlog)


def build(config: ModelAppConfig) -> Application:
    """Build the application of one variant."""
    options: dict[str, Any] = {"max_ongoing_requests": 16, "ray_actor_options": {"num_cpus": 0.1}}
    return serve.deployment(name="model", **options)(SlowOnDemand).bind(Shelf.of(config.bundle), config)
