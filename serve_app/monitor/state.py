"""Rolling counts and percentiles, from batches of observations."""

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from serve_app.monitor.observation import Observation

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

    def add(self, observation: Observation) -> None:
        self.total += 1
        self.model_versions[str(observation.model_version)] += 1
        if observation.reason is not None:
            # Abstentions are counted and never enter the statistics of what the model did.
            self.abstentions[str(observation.reason)] += 1
            return
        self.actions[str(observation.action)] += 1
        self.batch_sizes[observation.batch_size] += 1
        self._latencies.append(observation.latency_ms)
        for stage, value in (observation.timings_ms or {}).items():
            self._stages.setdefault(stage, deque(maxlen=self.window)).append(value)

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


class MonitorState:
    """What `GET /v1/monitor` answers. Not thread-safe: one actor owns it."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._variants: dict[str, _VariantState] = {}
        self._errors: Counter[str] = Counter()
        self._dropped = 0

    def add(self, observations: Sequence[Observation], dropped: int = 0) -> None:
        """Take in a batch of observations; `dropped` more were lost on the way."""
        self._dropped += dropped
        for observation in observations:
            if observation.error is not None:
                self._errors[observation.error] += 1
                continue
            name = str(observation.variant)
            self._variants.setdefault(name, _VariantState(self._window)).add(observation)

    def snapshot(self) -> dict[str, Any]:
        """Return counts, the action mix and latency percentiles (ms) per variant, and errors by code."""
        return {
            "variants": {name: state.snapshot() for name, state in sorted(self._variants.items())},
            "errors": dict(self._errors),
            "dropped_observations": self._dropped,
            "latency_window": self._window,
        }
