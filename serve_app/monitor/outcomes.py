"""What outcomes say of a model, where they overlap: how many of them count, and whether its errors have grown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.types import FloatArray, Matured

DELTA = 0.2
"""Of ADWIN, whose bound is far from tight: of 200,000 blocks without a change it calls fewer than 20 one."""
_FEWEST = 5
"""Blocks on either side of a change."""


@dataclass(frozen=True, slots=True)
class Loss:
    """The mean Brier loss of a model."""

    now: float
    """Since the latest change."""
    before: float | None
    """Until then; None: there was no change."""

    @property
    def has_grown(self) -> bool:
        """Whether the latest change was for the worse."""
        return self.before is not None and self.now > self.before


@dataclass(frozen=True, slots=True)
class Judged:
    """Predictions of one variant whose outcome is known, oldest outcome first, and what that says."""

    probabilities: FloatArray
    labels: FloatArray
    loss: Loss | None = None
    document: Mapping[str, Any] | None = None
    """Scores, for people; None where the bundle is not known."""
    model_version: str | None = None
    """Of the model that predicted."""


def effective_size(matured: Matured, horizon: int) -> float:
    """Return how many outcomes that do not overlap say as much as these.

    The label of a bar rests on the `horizon` bars after it, so that those of neighbours rest on nearly the same prices:
    each counts by its average uniqueness (López de Prado, "Advances in Financial Machine Learning", 2018, section 4.4),
    among the labels of its own symbol. Bars are those that were predicted; outcomes of no known bar are left out.
    """
    known = ~np.isnat(matured.times)
    _, bars = np.unique(matured.times[known], return_inverse=True)
    symbols = matured.symbols[known]
    return float(sum(_unique(bars[symbols == symbol], horizon).sum() for symbol in np.unique(symbols)))


def _unique(bars: np.ndarray, horizon: int) -> FloatArray:
    """Return the average uniqueness of the labels of one symbol, at bars (n,)."""
    concurrent = np.zeros(bars.max() + horizon + 1)
    for ahead in range(1, horizon + 1):
        np.add.at(concurrent, bars + ahead, 1)
    shares = np.stack([1 / concurrent[bars + ahead] for ahead in range(1, horizon + 1)])
    mean: FloatArray = shares.mean(axis=0)
    return mean


def losses(matured: Matured, horizon: int) -> FloatArray:
    """Return the mean Brier loss of each `horizon` consecutive bars, oldest first.

    A block that is not full yet is left out. Labels of one block overlap those of its
    neighbours only, so that the blocks are nearly independent.
    """
    known = ~np.isnat(matured.times)
    _, bars = np.unique(matured.times[known], return_inverse=True)
    squared = (matured.probabilities[known] - matured.labels[known]) ** 2
    blocks = bars // horizon
    full = (int(bars.max()) + 1) // horizon if len(bars) else 0
    means: FloatArray = np.bincount(blocks, weights=squared, minlength=full) / np.bincount(blocks, minlength=full)
    return means[:full]


def loss(blocks: FloatArray) -> Loss | None:
    """Return the loss before and after the latest change in it; None without a block.

    By ADWIN (Bifet and Gavaldà, "Learning from Time-Changing Data with Adaptive Windowing", 2007), of river.
    """
    from river.drift import ADWIN  # noqa: PLC0415  of no use to a router that serves

    detector = ADWIN(  # type: ignore[no-untyped-call]
        delta=DELTA, clock=1, grace_period=2 * _FEWEST, min_window_length=_FEWEST
    )
    before = None
    for value in blocks:
        until_now = detector.estimation
        detector.update(float(value))  # type: ignore[no-untyped-call]
        if detector.drift_detected:
            before = until_now
    return Loss(detector.estimation, before) if len(blocks) else None
