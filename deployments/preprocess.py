"""The preprocess stage as a deployment."""

from deployments.bundles import Shelf
from deployments.hop import Hop
from serve_app.pipeline import preprocess_of
from serve_app.types import RowBatch, WindowBatch


class PreprocessDeployment(Hop[RowBatch, WindowBatch]):
    """Turns rows into windows, for every bundle that serves. See `serve_app.preprocess.stage.Preprocess.run`."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf, preprocess_of)
