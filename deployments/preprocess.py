"""The preprocess stage as a deployment."""

import asyncio

from deployments.bundles import Shelf
from deployments.hop import Hop
from serve_app.batches import RowBatch, WindowBatch
from serve_app.model import Bundle
from serve_app.parity import check_preprocess
from serve_app.pipeline import Stage, preprocess_of


class PreprocessDeployment(Hop[RowBatch, WindowBatch]):
    """Turns rows into windows, for every bundle that serves. See `serve_app.preprocess.stage.Preprocess.run`.

    A bundle whose golden windows it does not reproduce is not loaded; a replica that was to begin with it never starts.
    """

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf, _proven)


def _proven(bundle: Bundle) -> Stage[RowBatch, WindowBatch]:
    """Make the stage and let it reproduce the golden windows; called in a thread, which has no event loop."""
    stage = preprocess_of(bundle)
    asyncio.run(check_preprocess(bundle, stage.run))
    return stage
