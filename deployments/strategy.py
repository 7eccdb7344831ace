"""The strategy stage as a deployment."""

import asyncio

from deployments.bundles import Shelf
from deployments.hop import Hop
from serve_app.batches import ActionBatch, PositionBatch
from serve_app.model import Bundle
from serve_app.parity import check_strategy
from serve_app.pipeline import Stage, strategy_of


class StrategyDeployment(Hop[PositionBatch, ActionBatch]):
    """Turns probabilities and positions into actions, for every bundle. See `serve_app.strategy.Strategy.run`.

    A bundle whose golden actions it does not reproduce is not loaded; a replica that was to begin with it never starts.
    """

    def __init__(self, shelf: Shelf) -> None:
        super().__init__(shelf, _proven)


def _proven(bundle: Bundle) -> Stage[PositionBatch, ActionBatch]:
    """Make the stage and let it reproduce the golden actions; called in a thread, which has no event loop."""
    stage = strategy_of(bundle)
    asyncio.run(check_strategy(bundle, stage.run))
    return stage
