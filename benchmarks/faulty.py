"""A candidate's model that goes wrong once it serves: its golden cases it reproduces."""

import asyncio
import os
from typing import Any

import numpy as np
from ray import serve
from ray.serve import Application

from deployments.autoscaling import Backlog
from deployments.bundles import Shelf
from deployments.model import ModelDeployment
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.config import ModelAppConfig
from serve_app.model import load_bundle

FAULT = "SIGNALGRAPH_BENCH_FAULT"
"""Environment variable: one of FAULTS."""
SLEEPS, RAISES, NONE = FAULTS = ("sleeps 5 s", "raises", "works")


class FaultyModel(ModelDeployment):
    """The real model behind a fault."""

    def __init__(self, shelf: Shelf, config: ModelAppConfig, fault: str) -> None:
        super().__init__(shelf, config)
        self._fault = fault
        self._golden = load_bundle(config.bundle).golden.windows

    async def run(self, batch: WindowBatch, backlog: Backlog) -> PredictionBatch:
        """Answer golden cases; go wrong on all else."""
        if self._fault != NONE and not np.array_equal(batch.windows, self._golden):
            if self._fault == RAISES:
                raise ValueError("a defect of the candidate")
            await asyncio.sleep(5)
        return await super().run(batch, backlog)


def build_model(config: ModelAppConfig) -> Application:
    """Build the application of a candidate with the fault that the environment names."""
    options: dict[str, Any] = {"max_ongoing_requests": 16, "ray_actor_options": {"num_cpus": 0.1}}
    deployment = serve.deployment(name="model", **options)(FaultyModel)
    return deployment.bind(Shelf.of(config.bundle), config, os.environ[FAULT])
