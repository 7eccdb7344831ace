"""The model stage of one variant as a deployment, an application of its own."""

import asyncio
from typing import TYPE_CHECKING, cast

from deployments.bundles import Shelf
from deployments.hop import Hop
from deployments.metrics import ModelMetrics
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.config import ModelAppConfig
from serve_app.model import Bundle
from serve_app.parity import check_golden
from serve_app.pipeline import ByDigest, Pipeline, Stage, model_of, stages_of

if TYPE_CHECKING:
    from serve_app.model.stage import Model


class ModelDeployment(Hop[WindowBatch, PredictionBatch]):
    """Turns windows into predictions. See `serve_app.model.stage.Model.run`.

    A bundle that does not reproduce its golden cases is not loaded; a replica that was to begin with it never starts.
    """

    def __init__(self, shelf: Shelf, config: ModelAppConfig) -> None:
        self._config = config
        self._out_of_memory = ModelMetrics(config.variant).out_of_memory
        super().__init__(shelf, self._proven)

    def _proven(self, bundle: Bundle) -> Stage[WindowBatch, PredictionBatch]:
        """Load a model and let it reproduce its golden cases; called in a thread, which has no event loop."""
        model = model_of(bundle, self._config.model, self._out_of_memory)
        stages = stages_of(bundle, ByDigest({bundle.digest: model}).run)
        asyncio.run(check_golden(Pipeline(bundle, stages)))
        return model

    async def check_health(self) -> None:
        """Fail when a forward pass never comes back; Ray Serve then replaces the replica."""
        await super().check_health()
        for model in self._stages.values():
            cast("Model", model).check_health()
