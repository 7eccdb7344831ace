"""The action-flip gate: what an export must show before it may serve in place of what it was exported from.

On the golden cases and a replay set, every probability stays within a bound, and no action changes unless the
reference's probability lies within a declared margin of a threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from serve_app.config import Section
from serve_app.types import FloatArray, Precision, Runtime, Thresholds


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a precision may change."""

    logit: float
    probability: float
    """Also the margin around the thresholds within which an action may change."""


ALLOWED: Mapping[Precision, Allowance] = {
    Precision.FP32: Allowance(logit=1e-4, probability=1e-5),
    Precision.FP16: Allowance(logit=2e-2, probability=5e-3),
    Precision.BF16: Allowance(logit=1e-1, probability=2e-2),
}
"""FP32: another order of the same sums. FP16 and BF16: 11 and 8 significant bits."""
NAMED = 5
"""Worst cases that a refusal names."""


def distance_to_threshold(probabilities: FloatArray, thresholds: Thresholds) -> FloatArray:
    """How far probabilities (W,) are from the nearest threshold (W,)."""
    limits = [x for x in (thresholds.signal_threshold, thresholds.exit_threshold) if x is not None]
    nearest: FloatArray = np.abs(probabilities[:, None] - limits).min(axis=1)
    return nearest


class GateReport(Section):
    """What was compared when an export passed. It is part of the bundle, as `gates.json`."""

    runtime: Runtime
    precision: Precision
    device: str
    reference: str
    """What it was held against: runtime, precision and bundle."""
    replay: str
    """Where the windows besides the golden cases came from."""
    golden_cases: int = Field(gt=0)
    windows: int = Field(gt=0)
    """Golden cases included."""
    max_probability_error: float
    probability_bound: float
    margin: float
    flips_within_margin: int
    """Windows whose action changes, all of them closer to a threshold than the margin."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sets of probabilities (W,) for the same windows, whose names are for people."""

    names: Sequence[str]
    reference: FloatArray
    export: FloatArray
    thresholds: Thresholds

    @property
    def errors(self) -> FloatArray:
        """Absolute differences (W,), infinite where the export gives no number."""
        return np.nan_to_num(np.abs(self.export - self.reference), nan=np.inf, posinf=np.inf)

    def flips(self) -> NDArray[np.bool_]:
        """Whether the action changes, FLAT or LONG (W,). Comparisons are those of the strategy: inclusive."""
        signal, leave = self.thresholds.signal_threshold, self.thresholds.exit_threshold
        flipped: NDArray[np.bool_] = (self.reference >= signal) != (self.export >= signal)
        if leave is not None:
            flipped |= (self.reference <= leave) != (self.export <= leave)
        return flipped

    def refusal(self, allowance: Allowance) -> str | None:
        """Say why the export may not serve, with the worst cases; None when it may."""
        flips = self.flips() & (distance_to_threshold(self.reference, self.thresholds) > allowance.probability)
        off = ~(self.errors <= allowance.probability)
        bad = np.flatnonzero(flips | off)
        if not len(bad):
            return None
        worst = bad[np.argsort(-self.errors[bad], kind="stable")][:NAMED]
        cases = [
            f"{self.names[i]}: {self.reference[i]:.6f} before, {self.export[i]:.6f} exported"
            f"{', another action' if flips[i] else ''}"
            for i in worst
        ]
        return (
            f"the export decides otherwise: of {len(self.names)} windows {int(off.sum())} probabilities are off by more"
            f" than {allowance.probability:g} and {int(flips.sum())} actions change outside that margin around the"
            f" thresholds; the worst: {'; '.join(cases)}"
        )
