"""The strategy stage as a deployment."""

from deployments.bundles import Shelf
from deployments.hop import Hop
from serve_app.pipeline import strategy_of
from serve_app.types import ActionBatch, PositionBatch


class StrategyDeployment(Hop[PositionBatch, ActionBatch]):
    """Turns probabilities and positions into actions, for every bundle. See `serve_app.strategy.Strategy.run`."""

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf, strategy_of)
