"""Rolling counts and percentiles, from what routers have summed up."""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.errors import SERVER_CODES
from serve_app.monitor.observation import Observations, VariantObservations

PERCENTILES = (50, 95, 99)


def _percentiles(values: Iterable[float]) -> dict[str, float] | None:
    array = np.fromiter(values, dtype=float)
    if not len(array):
        return None
    return {f"p{q}": round(float(np.percentile(array, q)), 3) for q in PERCENTILES}


@dataclass
class _VariantState:
    """Totals since the start, latencies over the latest `window` answers."""

    window: int
    model_versions: Counter[str] = field(default_factory=Counter)
    actions: Counter[str] = field(default_factory=Counter)
    abstentions: Counter[str] = field(default_factory=Counter)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    total: int = 0

    def __post_init__(self) -> None:
        self._latencies: deque[float] = deque(maxlen=self.window)
        self._stages: dict[str, deque[float]] = {}

    def add(self, observed: VariantObservations) -> None:
        for kind, n in observed.kinds.items():
            self.total += n
            self.model_versions[kind.model_version] += n
            if kind.reason is None:
                self.actions[str(kind.action)] += n
            else:
                self.abstentions[str(kind.reason)] += n
        self.batch_sizes.update(observed.batch_sizes)
        self._latencies.extend(observed.latencies_ms)
        for stage, values in observed.stages_ms.items():
            self._stages.setdefault(stage, deque(maxlen=self.window)).extend(values)

    def snapshot(self) -> dict[str, Any]:
        return {
            "requests": self.total,
            "model_versions": dict(self.model_versions),
            "actions": dict(self.actions),
            "abstentions": dict(self.abstentions),
            "rows_by_batch_size": {str(size): rows for size, rows in sorted(self.batch_sizes.items())},
            "latency_ms": _percentiles(self._latencies),
            "stages_ms": {stage: _percentiles(values) for stage, values in self._stages.items()},
        }


def failures(snapshot: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many requests a snapshot counts as failed by the server's fault, and how many in all."""
    errors = sum(n for code, n in snapshot["errors"].items() if code in SERVER_CODES)
    answered = sum(variant["requests"] for variant in snapshot["variants"].values())
    return errors, answered + sum(snapshot["errors"].values())


class MonitorState:
    """What `GET /v1/monitor` answers. Not thread-safe: one actor owns it."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._variants: dict[str, _VariantState] = {}
        self._errors: Counter[str] = Counter()
        self._dropped = 0

    def add(self, observations: Observations, dropped: int = 0) -> None:
        """Take in what a router has summed up; `dropped` more answers were lost on the way."""
        self._dropped += dropped
        self._errors.update(observations.errors)
        for name, observed in observations.variants.items():
            self._variants.setdefault(str(name), _VariantState(self._window)).add(observed)

    def snapshot(self) -> dict[str, Any]:
        """Return counts, the action mix and latency percentiles (ms) per variant, and errors by code."""
        return {
            "variants": {name: state.snapshot() for name, state in sorted(self._variants.items())},
            "errors": dict(self._errors),
            "dropped_observations": self._dropped,
            "latency_window": self._window,
        }
