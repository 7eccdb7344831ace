"""What every stage that is a deployment of its own does beside its work: count rows, and say how many are to come."""

from deployments.autoscaling import Backlog, Demand
from deployments.metrics import HopMetrics


class Hop:
    """The other end of a `RemoteStage`."""

    def __init__(self) -> None:
        self._demand = Demand()
        self._metrics = HopMetrics()

    def called(self, rows: int, backlog: Backlog) -> None:
        """Take note of one call."""
        self._demand.hear(backlog)
        self._metrics.called(rows)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve what `deployments.autoscaling.ScaleByRows` scales on."""
        return self._demand.stats()
