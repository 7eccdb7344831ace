"""The preprocess stage as a deployment."""

from collections.abc import Sequence

from deployments.bundles import BundleRef
from serve_app.pipeline import ByDigest, preprocess_of
from serve_app.types import RowBatch, WindowBatch


class PreprocessDeployment:
    """Turns rows into windows, for every bundle that serves."""

    def __init__(self, bundles: Sequence[BundleRef]) -> None:
        self._stage = ByDigest({ref.digest: preprocess_of(ref.load()) for ref in bundles})

    async def run(self, batch: RowBatch) -> WindowBatch:
        """See `serve_app.preprocess.Preprocess.run`."""
        return await self._stage.run(batch)
