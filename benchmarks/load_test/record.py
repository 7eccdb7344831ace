"""A whole load test: what was seen, and whether it was as it must be."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.load_test.answers import Second
from benchmarks.load_test.ramp import Ramp
from benchmarks.load_test.replicas import Replicas
from deployments.stages import MODEL, model_application
from serve_app.types import VariantName

SCALED = f"{model_application(VariantName.PRODUCTION)}/{MODEL}"
"""The deployment that has to grow and shrink."""
_FAULTS_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Record:
    """What one load test saw. Both series are in the order of time, on the same clock."""

    ramp: Ramp
    target: str
    """Which graph: its configuration file, or its address."""
    machine: str
    date: str
    commit: str | None
    began: float
    """Unix time."""
    seconds: Sequence[Second]
    replicas: Sequence[Replicas]

    @property
    def requests(self) -> int:
        """All of them."""
        return sum(second.requests for second in self.seconds)

    @property
    def abstentions(self) -> int:
        """Requests that were answered without a decision of the model."""
        return sum(second.abstentions for second in self.seconds)

    @property
    def faults(self) -> Counter[str]:
        """How often each thing went wrong."""
        return sum((Counter(second.faults) for second in self.seconds), Counter())

    @property
    def scaled(self) -> list[int]:
        """Replicas of the model over time."""
        return [one.running.get(SCALED, 0) for one in self.replicas]

    def complaints(self) -> Iterator[str]:
        """Say all that is not as it must be."""
        if not self.requests:
            yield "no request was answered"
        if faults := self.faults:
            most = "; ".join(f"{n} times {fault}" for fault, n in faults.most_common(_FAULTS_SHOWN))
            yield f"{faults.total()} of {self.requests} requests failed: {most}"
        yield from self._complaints_of_scaling()

    def _complaints_of_scaling(self) -> Iterator[str]:
        counts = self.scaled
        if not any(counts):
            yield f"Ray Serve never said how many replicas {SCALED} has"
            return
        first, last, most = counts[0], counts[-1], max(counts)
        if most <= first:
            yield f"{SCALED} did not scale up: {first} at the start and never more"
        elif last > first:
            yield f"{SCALED} did not scale down: {first} at the start, {most} at most, {last} at the end"

    def summary(self) -> Iterator[tuple[str, str]]:
        """Yield what to print, by name."""
        counts = self.scaled or [0]
        most = max((second.per_s for second in self.seconds), default=0)
        yield f"replicas of {SCALED}", f"{counts[0]} at the start, {max(counts)} at most, {counts[-1]} at the end"
        yield "requests", f"{self.requests:,}, at most {most:,.0f} in a second"
        yield "failed", f"{self.faults.total():,}"
        yield "abstentions", f"{self.abstentions:,}"

    def document(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return asdict(self)
