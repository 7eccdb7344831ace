"""How good one variant's predictions were, given what happened. Scores are those of scikit-learn."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, log_loss

from serve_app.types import FloatArray

BINS = 10
_FINITE = 1e-15
"""What keeps the log loss of a certain and wrong prediction finite, as scikit-learn once did by itself."""


@dataclass(frozen=True, slots=True)
class Scores:
    """Of N predictions. None where there is nothing to compute it from: no predictions, or only one kind of outcome."""

    n: int
    base_rate: float | None
    brier: float | None
    log_loss: float | None
    average_precision: float | None
    calibration_error: float | None
    """Expected calibration error over BINS bins of equally many predictions."""
    signals: int
    """Predictions at or above the signal threshold."""
    hit_rate: float | None
    """Of those signals, the share that was right."""


@dataclass(frozen=True, slots=True)
class Bin:
    """Predictions that lie next to one another: their mean, how often it happened, how many they are."""

    predicted: float
    happened: float
    n: int


def calibration(probability: FloatArray, outcome: NDArray[np.bool_], bins: int = BINS) -> list[Bin]:
    """Return the reliability curve of predictions (N,), in bins of equally many, lowest first."""
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return [Bin(float(probability[part].mean()), float(outcome[part].mean()), len(part)) for part in parts]


def scores(probability: FloatArray, outcome: NDArray[np.bool_], signal_threshold: float) -> Scores:
    """Score predictions (N,) by what happened (N,)."""
    n, taken = len(probability), probability >= signal_threshold
    both = 0 < int(outcome.sum()) < n
    curve = calibration(probability, outcome)
    return Scores(
        n=n,
        base_rate=float(outcome.mean()) if n else None,
        brier=float(np.mean((probability - outcome) ** 2)) if n else None,
        log_loss=float(log_loss(outcome, np.clip(probability, _FINITE, 1 - _FINITE), labels=[False, True]))
        if n
        else None,
        average_precision=float(average_precision_score(outcome, probability)) if both else None,
        calibration_error=sum(one.n * abs(one.predicted - one.happened) for one in curve) / n if n else None,
        signals=int(taken.sum()),
        hit_rate=float(outcome[taken].mean()) if taken.any() else None,
    )
