"""The strategy stage as a deployment."""

from collections.abc import Sequence

from deployments.bundles import BundleRef
from serve_app.pipeline import ByDigest, strategy_of
from serve_app.types import ActionBatch, PositionBatch


class StrategyDeployment:
    """Turns probabilities and positions into actions, for every bundle that serves."""

    def __init__(self, bundles: Sequence[BundleRef]) -> None:
        self._stage = ByDigest({ref.digest: strategy_of(ref.load()) for ref in bundles})

    async def run(self, batch: PositionBatch) -> ActionBatch:
        """See `serve_app.strategy.Strategy.run`."""
        return await self._stage.run(batch)
