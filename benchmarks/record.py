"""What one run of the benchmark measured: readings in rounds, of which medians are quoted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

CONNECTIONS = (1, 16, 64, 128)
FULL = 64
"""Connections at which capacities are compared."""


def per_s(connections: int) -> str:
    """Name the measure of answers a second in the closed loop."""
    return f"requests/s at {connections}"


def latency(percentile: int, connections: int) -> str:
    """Name the measure of latency in the closed loop."""
    return f"p{percentile} ms at {connections}"


BARS = f"{per_s(FULL)}, raw bars"
RATE = "highest open-loop rate with p99 < 100 ms"
HALF_P99 = "p99 ms, open loop at half capacity"
CAPACITY_P99 = "p99 ms of the 200s, open loop at capacity"
TWICE_P99 = "p99 ms of the 200s, open loop at twice capacity"
TWICE_GOOD = "200s a second, open loop at twice capacity"
TWICE_REFUSED = "share of 429 and 503, open loop at twice capacity"
TWICE_OTHER = "other answers and none, open loop at twice capacity"
RECOVERY_S = "seconds until 90 % of capacity, after twice capacity"
ARROW = "rows/s, 500 a request, Arrow"
JSON = "rows/s, 500 a request, JSON"
FORWARD = "rows/s, 500 a pass"
"""Measures beside the closed loop."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One number that was measured."""

    round: int
    system: str
    measure: str
    value: float


@dataclass(slots=True)
class Record:
    """All readings of a run, and where it ran. Grows while it runs."""

    machine: str
    date: str
    commit: str | None
    rounds: int
    titles: Mapping[str, str]
    """Of the systems, by name, in the order in which they are shown."""
    readings: list[Reading] = field(default_factory=list)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Of ours, what the monitor said at FULL connections: `rows_by_batch_size` and `stages_ms`, in the last round."""
    faults: list[str] = field(default_factory=list)

    def add(self, number: int, system: str, measured: Mapping[str, float]) -> None:
        """Keep what one visit of a system measured in a round."""
        self.readings += [Reading(number, system, measure, value) for measure, value in measured.items()]

    def values(self, system: str, measure: str) -> list[float]:
        """Return what was read, one a round."""
        return [one.value for one in self.readings if (one.system, one.measure) == (system, measure)]

    def median(self, system: str, measure: str) -> float | None:
        """Return the median over the rounds; None when it was never measured."""
        values = self.values(system, measure)
        return median(values) if values else None

    def best(self, systems: Sequence[str], measure: str) -> float | None:
        """Return the highest median among systems."""
        return max(filter(None, (self.median(system, measure) for system in systems)), default=None)

    @property
    def where(self) -> str:
        """Say where, when and of how many rounds so far."""
        done = len({one.round for one in self.readings})
        return f"{self.machine}; {self.date}; medians of {done} rounds, in which the systems took turns"

    def measured(self) -> Iterator[str]:
        """Yield the systems of which there are readings."""
        yield from (name for name in self.titles if any(one.system == name for one in self.readings))

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self)
