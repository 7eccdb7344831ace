"""The strategy stage as a deployment."""

from collections.abc import Sequence

from deployments.autoscaling import Backlog
from deployments.bundles import BundleRef
from deployments.hop import Hop
from serve_app.pipeline import ByDigest, strategy_of
from serve_app.types import ActionBatch, PositionBatch


class StrategyDeployment(Hop):
    """Turns probabilities and positions into actions, for every bundle that serves."""

    def __init__(self, bundles: Sequence[BundleRef]) -> None:
        super().__init__()
        self._stage = ByDigest({ref.digest: strategy_of(ref.load()) for ref in bundles})

    async def run(self, batch: PositionBatch, backlog: Backlog) -> ActionBatch:
        """See `serve_app.strategy.Strategy.run`."""
        self.called(len(batch), backlog)
        return await self._stage.run(batch)
