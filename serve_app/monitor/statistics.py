"""How unlike its training what a model sees is: per feature, whatever the mix of symbols.

Each value is replaced by its rank among the training values of its own symbol (the probability integral transform,
Rosenblatt 1952): where nothing has changed, ranks are uniform on [0, 1], for a price of 20 as for one of 700.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.types import FloatArray

Numbers = NDArray[np.floating[Any]]
"""Windows are float32, ranks float64."""
BINS = 10
"""Of the population stability index."""
_EMPTY = 1e-4
"""What an empty bin counts for: the index would be infinite."""


def ranks(values: Numbers, quantiles: Numbers, rng: np.random.Generator) -> FloatArray:
    """Return the rank of each value (n, F) among training quantiles (n, F, Q) of its symbol; NaN stays NaN.

    Below the smallest training value it is 0, above the largest 1. Within a quantile, and among values that occurred
    many times, it is drawn: so are the ranks of a constant, which has not changed, uniform.
    """
    last = quantiles.shape[-1] - 1
    below = (quantiles < values[..., None]).sum(axis=-1)
    up_to = (quantiles <= values[..., None]).sum(axis=-1)
    low, high = np.maximum(below - 1, 0), np.minimum(up_to, last)
    drawn: FloatArray = (low + rng.random(values.shape) * (high - low)) / last
    drawn[below > last] = 1.0
    drawn[np.isnan(values)] = np.nan
    return drawn


def outside(values: Numbers, quantiles: Numbers) -> NDArray[np.bool_]:
    """Return whether each value (n, F) is smaller or larger than all in training (n, F, Q)."""
    beyond: NDArray[np.bool_] = (values < quantiles[..., 0]) | (values > quantiles[..., -1])
    return beyond


def ks(drawn: FloatArray) -> FloatArray:
    """Return the Kolmogorov-Smirnov distance from uniform of ranks (..., n, F), none of them NaN, as (..., F)."""
    n = drawn.shape[-2]
    ordered = np.sort(drawn, axis=-2)
    steps = np.arange(n)[:, None] / n
    distance: FloatArray = np.maximum(ordered - steps, steps + 1 / n - ordered).max(axis=-2)
    return distance


def psi(drawn: FloatArray) -> FloatArray:
    """Return the population stability index of ranks (n, F), none of them NaN, against uniform, as (F,)."""
    n, n_features = drawn.shape
    bins = np.minimum((drawn * BINS).astype(int), BINS - 1)
    counts = np.stack([np.bincount(bins[:, f], minlength=BINS) for f in range(n_features)])
    share = np.maximum(counts / n, _EMPTY)
    index: FloatArray = ((share - 1 / BINS) * np.log(share * BINS)).sum(axis=1)
    return index


def repeated(values: Numbers, symbols: NDArray[np.str_]) -> tuple[FloatArray, int]:
    """Return the share (F,) in which a value (n, F) is that of its symbol's row before, and of how many pairs of rows.

    Rows that are the same throughout are one bar that was asked about again, and tell nothing.
    """
    pairs = [(values[before], values[after]) for before, after in _following(symbols)]
    changed = [before == after for before, after in pairs if (before != after).any()]
    if not changed:
        return np.zeros(values.shape[1]), 0
    return np.mean(changed, axis=0), len(changed)


def _following(symbols: NDArray[np.str_]) -> list[tuple[int, int]]:
    """Return each row with the next one of its symbol."""
    order = np.argsort(symbols, kind="stable")
    same = symbols[order][1:] == symbols[order][:-1]
    return list(zip(order[:-1][same].tolist(), order[1:][same].tolist(), strict=True))
