"""The preprocess stage as a deployment."""

from collections.abc import Sequence

from deployments.autoscaling import Backlog
from deployments.bundles import BundleRef
from deployments.hop import Hop
from serve_app.pipeline import ByDigest, preprocess_of
from serve_app.types import RowBatch, WindowBatch


class PreprocessDeployment(Hop):
    """Turns rows into windows, for every bundle that serves."""

    def __init__(self, bundles: Sequence[BundleRef]) -> None:
        super().__init__()
        self._stage = ByDigest({ref.digest: preprocess_of(ref.load()) for ref in bundles})

    async def run(self, batch: RowBatch, backlog: Backlog) -> WindowBatch:
        """See `serve_app.preprocess.stage.Preprocess.run`."""
        self.called(len(batch), backlog)
        return await self._stage.run(batch)
