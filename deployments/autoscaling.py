"""Scaling on rows. Hops carry batches, so Ray Serve's ongoing requests count batches, of which each router has few.

The routers say with every batch how many of their rows wait or are in the stages; each replica of a stage adds up what
it has heard lately, and the policy asks for as many replicas as that many rows need. Stages that scale on the same rows
keep their ratio: it is that of their `rows_per_replica`.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ray.serve.config import AutoscalingContext

ROWS = "rows_outstanding"
HEARD_S = 2.0
"""What a router said longer ago than this says nothing about now."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """What one router has to do for one variant: rows that wait or are in the stages."""

    router: str
    rows: int


class Demand:
    """What a replica of a stage has heard of the backlogs of all routers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, int]] = {}

    def hear(self, backlog: Backlog) -> None:
        """Take in what came with a batch."""
        self._heard[backlog.router] = (self._clock(), backlog.rows)

    @property
    def rows(self) -> int:
        """Rows that all routers together had outstanding when they were last heard."""
        now = self._clock()
        self._heard = {router: heard for router, heard in self._heard.items() if now - heard[0] <= HEARD_S}
        return sum(rows for _, rows in self._heard.values())

    def stats(self) -> dict[str, float]:
        """Return what Ray Serve hands to the policy."""
        return {ROWS: self.rows}


class ScaleByRows:
    """An autoscaling policy: one replica for every `rows_per_replica` rows outstanding.

    In YAML: `policy: {policy_function: "deployments.autoscaling:ScaleByRows", policy_kwargs: {rows_per_replica: 64}}`;
    Ray Serve applies its bounds, factors and delays to what it asks for.
    """

    def __init__(self, rows_per_replica: float) -> None:
        if rows_per_replica <= 0:
            raise ValueError(f"rows_per_replica is {rows_per_replica}; it must be greater than 0")
        self._rows_per_replica = rows_per_replica

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """Return how many replicas the outstanding rows need."""
        heard = (context.aggregated_metrics or {}).get(ROWS, {})
        # Each replica hears of all routers, so the most that one has heard is the whole, and a sum would be a multiple.
        return max(1, math.ceil(max(heard.values(), default=0.0) / self._rows_per_replica)), {}
