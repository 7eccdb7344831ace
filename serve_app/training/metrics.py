"""How good the probabilities are, and where to cut them."""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

from serve_app.types import FloatArray

Labels = NDArray[np.float32] | FloatArray

SCORE_NOISE = 1e-5
"""Scores closer than this may change order with the batch they are computed in (FP32 agrees to 1e-6)."""


def evaluate(labels: Labels, probabilities: FloatArray, threshold: float) -> dict[str, float | None]:
    """Measure probabilities (n,) against labels (n,) of 0 and 1; a signal is p ≥ threshold.

    None where a metric is undefined: ranking metrics need both classes, precision a signal, recall a positive.
    `brier_base_rate` is the Brier score of always answering this sample's base rate, the score to beat.
    """
    n, positives = len(labels), float(np.sum(labels))
    both_classes = 0 < positives < n
    signals = probabilities >= threshold
    hits, n_signals = float(np.sum(labels[signals])), int(signals.sum())
    base_rate = positives / n if n else None
    return {
        "n": n,
        "base_rate": base_rate,
        "roc_auc": float(roc_auc_score(labels, probabilities)) if both_classes else None,
        "average_precision": float(average_precision_score(labels, probabilities)) if both_classes else None,
        "brier": float(np.mean((probabilities - labels) ** 2)) if n else None,
        "brier_base_rate": base_rate * (1 - base_rate) if base_rate is not None else None,
        "n_signals": n_signals,
        "precision": hits / n_signals if n_signals else None,
        "recall": hits / positives if positives else None,
    }


def choose_threshold(labels: Labels, probabilities: FloatArray, min_coverage: float = 0.05) -> float:
    """Return the threshold with the highest precision among those at which at least `min_coverage` of windows signal.

    Of equally precise thresholds the lowest wins: more signals of the same quality. A threshold lies midway between
    two adjacent scores that differ by more than SCORE_NOISE, so no decision hangs on the last bits of a float.
    """
    order = np.argsort(-probabilities, kind="stable")
    scores = probabilities[order]
    below = np.append(scores[1:], 0.0)
    signals = np.arange(1, len(scores) + 1)
    precision = np.cumsum(labels[order], dtype=np.float64) / signals
    # The lowest cut, at which everything signals, is always allowed; it is also the answer to scores all alike.
    allowed = (scores - below > SCORE_NOISE) & (signals >= min_coverage * len(scores))
    allowed[-1] = True
    best = np.flatnonzero(allowed & (precision == precision[allowed].max()))[-1]
    return float((scores[best] + below[best]) / 2)
