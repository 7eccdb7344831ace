"""The application of a model that takes its time, and notes each batch that has reached it."""

import asyncio
import os
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application

from deployments.autoscaling import Backlog
from deployments.bundles import Shelf
from deployments.model import ModelDeployment
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.config import ModelAppConfig

NOTES = "SIGNALGRAPH_TEST_NOTES"


def note(text: str) -> None:
    """Add to the notes."""
    with Path(os.environ[NOTES]).open("a") as file:
        file.write(text)


class SlowModel(ModelDeployment):
    """The real model, half a second later."""

    async def run(self, batch: WindowBatch, backlog: Backlog) -> PredictionBatch:
        note(f"{len(batch)}\n")
        await asyncio.sleep(0.5)
        return await super().run(batch, backlog)


def build(config: ModelAppConfig) -> Application:
    """Build the application of one variant."""
    options: dict[str, Any] = {"max_ongoing_requests": 16, "ray_actor_options": {"num_cpus": 0.1}}
    return serve.deployment(name="model", **options)(SlowModel).bind(Shelf.of(config.bundle), config)
