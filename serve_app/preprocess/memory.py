"""How many bars each feature really reads, measured by disturbing one bar after the other."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS, FeatureSet
from serve_app.types import FloatArray, TimeArray

# Large enough that a disturbed bar becomes the highest or the lowest of its neighbourhood.
_DISTURBANCES = (0.5, 2.0)

# Features are given their declared memory and the rows before it: one that reads more than it declares shows.
_ROWS = 24


def _reads(feature_set: FeatureSet, stacked: FloatArray, timestamp: TimeArray, factor: float) -> NDArray[np.bool_]:
    """Whether feature f at the last of N bars changes when the bar `lag` before it does, shape (N, F)."""
    n = len(stacked)
    prices = len(REQUIRED_COLUMNS)
    disturbed = np.repeat(stacked[None], n, axis=0)
    # Row `lag` disturbs the bar that many bars ago.
    disturbed[np.arange(n), n - 1 - np.arange(n), :prices] *= factor
    times = np.repeat(timestamp[None], n, axis=0)
    original = feature_set.compute(stacked[None], timestamp[None], rows=_ROWS)[0, -1]
    changed: NDArray[np.bool_] = feature_set.compute(disturbed, times, rows=_ROWS)[:, -1] != original
    return changed


def measure_memory(feature_set: FeatureSet, stacked: FloatArray, timestamp: TimeArray) -> Mapping[str, int]:
    """Measure the memory of every feature at the last bar of a history (N, C), N ≥ declared memory + 24.

    A feature that no bar changes (it reads the calendar, or an exogenous column) has memory 1.
    """
    reads = np.any([_reads(feature_set, stacked, timestamp, factor) for factor in _DISTURBANCES], axis=0)
    oldest = [int(np.flatnonzero(column).max(initial=0)) for column in reads.T]
    return {name: lag + 1 for name, lag in zip(feature_set.features, oldest, strict=True)}
