"""The paired comparison: both models have predicted the same bars, and what happened says which was nearer.

* **Score.** The Brier score (p - y)^2 is bounded and proper. Its difference, candidate less production, is negative
  where the candidate was nearer. Given both predictions, its two possible values are known before the outcome is.
* **Clusters.** Symbols share the market: what they show at one time is one observation, their mean.
* **Overlap.** An outcome looks several bars ahead, so neighbouring bars share most of what they look at. They are
  gathered into blocks so long that all outcomes of a block are known when the next but one begins. Within the blocks
  of odd, and within those of even number, each is then known before the next is predicted: two sums of martingale
  differences, whose bounds hold together by a union bound (lags: Choe and Ramdas, arXiv 2110.00115 and 2402.09698).
* **Scale.** How far the models lie apart on a typical bar is seen in the first blocks, which count for nothing else. A
  later bar on which they lie farther apart gets less weight, so that it moves the mean no farther: the bound grows with
  the farthest that one bar can move it, and this way finds differences after half the bars or less.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq

from serve_app.router.experiments.confidence import boundary
from serve_app.types import FloatArray, TimeArray

ALPHA = 0.05
BURN_IN = 10
"""Blocks that only say how far the models lie apart."""
_SMALLEST = 1e-9
"""Models that lie less apart than this are the same."""
_FARTHEST = 1_000.0
"""Times the bars seen: nobody waits for more."""


@dataclass(frozen=True, slots=True)
class Pairs:
    """Predictions of both models of the same symbol and bar, with what happened; N of them, in any order."""

    time: TimeArray
    """(N,) of the bar."""
    known: TimeArray
    """(N,) when the outcome was known; after `time`."""
    production: FloatArray
    """(N,) probabilities"""
    candidate: FloatArray
    """(N,)"""
    outcome: NDArray[np.bool_]
    """(N,)"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """How the mean Brier difference (candidate less production) developed, block by block."""

    time: TimeArray
    """(T,) of the last bar of each block that counts."""
    bars: NDArray[np.int64]
    """(T,) that have counted by then."""
    mean: FloatArray
    """(T,) of the bars so far, each by its weight."""
    low: FloatArray
    """(T,)"""
    high: FloatArray
    """(T,) With a probability of 1 - alpha all T intervals hold the mean of what was to be expected until then."""
    more_bars: float | None
    """About how many more until the interval leaves 0 behind, if all goes on like this; None when it has, or when
    nobody would wait for it."""

    def __len__(self) -> int:
        return len(self.time)

    @classmethod
    def nothing(cls) -> "Comparison":
        """Return what there is to see before the first block has counted."""
        none = np.empty(0)
        return cls(np.empty(0, dtype="datetime64[us]"), np.empty(0, dtype=np.int64), none, none, none, None)


@dataclass(frozen=True, slots=True)
class _Bars:
    """Pairs gathered by time (N,), in its order."""

    time: TimeArray
    known: TimeArray
    """When all of it was known."""
    difference: FloatArray
    reach: FloatArray
    """What the difference could have been at most, either way."""


def _gather(pairs: Pairs) -> _Bars:
    time, place, count = np.unique(pairs.time, return_inverse=True, return_counts=True)
    known = time.copy()
    np.maximum.at(known, place, pairs.known)
    y = pairs.outcome.astype(np.float64)
    difference = (pairs.candidate - y) ** 2 - (pairs.production - y) ** 2
    reach = np.abs(pairs.candidate - pairs.production) * (1 + np.abs(pairs.candidate + pairs.production - 1))
    return _Bars(time, known, np.bincount(place, difference) / count, np.bincount(place, reach) / count)


def _block_starts(bars: _Bars, overlap: int) -> NDArray[np.int64]:
    """Return where each block begins, and last where the first incomplete one does."""
    starts, known = [0], np.maximum.accumulate(bars.known)
    for i in range(overlap, len(bars.time)):
        # All that came before the block that ends here must be known: it is what the next one follows.
        before = starts[-1] - 1
        if i - starts[-1] >= overlap and (before < 0 or known[before] <= bars.time[i]):
            starts.append(i)
    return np.array(starts)


@dataclass(frozen=True, slots=True)
class _Bound:
    """How far the sums of both streams of blocks may be from what was to be expected, together."""

    alpha: float
    scale: float
    tight_at: float

    def __call__(self, variances: FloatArray) -> FloatArray:
        """Return it for the variances (..., 2); a stream without a block adds nothing."""
        # Half for each stream, half of that for each side.
        bounds = boundary(variances.ravel(), self.alpha / 4, self.scale, self.tight_at).reshape(variances.shape)
        return np.asarray(np.where(variances > 0, bounds, 0.0).sum(axis=-1))


def compare(pairs: Pairs, overlap: int, alpha: float = ALPHA, planned_bars: int = 1_000) -> Comparison:
    """Compare two models on the bars that both predicted, whose outcomes look `overlap` bars ahead.

    The interval is narrowest after `planned_bars`, and holds whenever one looks. Which pairs are there must not depend
    on what happened: leave out bars so late that some outcomes could be known and others not. Raises ValueError for an
    overlap of less than one bar.
    """
    if overlap < 1:
        raise ValueError(f"an outcome looks at least one bar ahead, not {overlap}")
    bars = _gather(pairs)
    starts = _block_starts(bars, overlap)
    if len(starts) <= BURN_IN:
        return Comparison.nothing()
    typical = max(_SMALLEST, float(np.median(bars.reach[: starts[BURN_IN]])))
    sizes = np.diff(starts)
    # A block that had to be longer counts for no more than the others.
    weight = np.minimum(1.0, typical / np.maximum(bars.reach, _SMALLEST))
    weight[: starts[-1]] *= np.repeat(overlap / sizes, sizes)
    terms, weights = (_block_sums(values, starts) for values in (weight * bars.difference, weight))
    bound = _Bound(
        alpha=alpha,
        scale=typical * overlap,
        # Of the burn-in, the outcomes of its last block are not known yet.
        tight_at=planned_bars / overlap / 2 * max(_SMALLEST, float(np.mean(terms[: BURN_IN - 1] ** 2))),
    )
    return _sequence(bound, bars.time[starts[BURN_IN + 1 :] - 1], sizes[BURN_IN:], terms[BURN_IN:], weights[BURN_IN:])


def _block_sums(values: FloatArray, starts: NDArray[np.int64]) -> FloatArray:
    return np.diff(np.concatenate([[0.0], np.cumsum(values)])[starts])


def _sequence(
    bound: _Bound, time: TimeArray, sizes: NDArray[np.int64], terms: FloatArray, weights: FloatArray
) -> Comparison:
    streams = np.arange(len(terms))[:, None] % 2 == np.arange(2)
    variances = np.cumsum(streams * terms[:, None] ** 2, axis=0)
    bars, total = np.cumsum(sizes), np.cumsum(weights)
    mean, radius = np.cumsum(terms) / total, bound(variances) / total
    more = _times_more(bound, variances[-1], total[-1], mean[-1]) if len(mean) else None
    more_bars = None if more is None else more * int(bars[-1])
    return Comparison(time, bars, mean, mean - radius, mean + radius, more_bars)


def _times_more(bound: _Bound, variances: FloatArray, total: float, mean: float) -> float | None:
    """Return how many times what was seen, on top of it, makes the interval narrower than the mean is far from 0."""

    def excess(times: float) -> float:
        return float(bound(variances * times)) / (total * times) - abs(mean)

    if excess(1.0) <= 0 or excess(_FARTHEST) > 0:
        return None
    return float(brentq(excess, 1.0, _FARTHEST)) - 1.0
