"""Labelled windows from bars, through the very feature code that serves."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from sklearn.preprocessing import StandardScaler

from serve_app.model import LabelDefinition
from serve_app.preprocess import FeatureSet, Scaler, fill_forward
from serve_app.training.labels import label
from serve_app.training.splits import BoolArray
from serve_app.types import Bars, Float32Array, FloatArray, TimeArray


@dataclass(frozen=True, slots=True)
class Samples:
    """Scaled windows (n, L, F), asset ids (n,), labels (n,) of 0 and 1, times (n,) of the windows' last bars."""

    windows: Float32Array
    asset_ids: NDArray[np.int64]
    labels: Float32Array
    timestamps: TimeArray

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True)
class FeatureTable:
    """All rows of one symbol: unscaled features (N, F), labels (N,), timestamps (N,).

    `usable` (N,) marks the rows that end a complete window and have a label.
    """

    features: FloatArray
    labels: FloatArray
    timestamps: TimeArray
    usable: BoolArray


def feature_table(
    bars: Bars,
    feature_set: FeatureSet,
    lookback_window: int,
    definition: LabelDefinition,
    exogenous: Mapping[str, float],
) -> FeatureTable:
    """Compute features and labels of every bar of one symbol.

    A row is usable from bar `bars_needed` on, as in serving, if its window has no gap left after filling forward.
    """
    stacked = feature_set.stack(bars, exogenous)[None]
    features = feature_set.compute(stacked, bars.timestamp[None], len(bars))[0]
    labels = label(bars, definition)
    usable = np.zeros(len(bars), dtype=np.bool_)
    first = feature_set.bars_needed(lookback_window) - 1
    if len(bars) > first:
        gaps = np.isnan(fill_forward(_windows(features, lookback_window)[first - lookback_window + 1 :]))
        usable[first:] = ~np.any(gaps, axis=(1, 2)) & ~np.isnan(labels[first:])
    return FeatureTable(features, labels, bars.timestamp, usable)


def fit_scaler(tables: Iterable[FeatureTable], train_end: np.datetime64) -> Scaler:
    """Fit mean and deviation on the complete rows up to `train_end`, each row once, over all symbols together."""
    rows = np.concatenate([table.features[table.timestamps <= train_end] for table in tables])
    fitted = StandardScaler().fit(rows[~np.isnan(rows).any(axis=1)])
    return Scaler(mean=fitted.mean_, scale=fitted.scale_)


def make_samples(
    tables: Mapping[int, FeatureTable], chosen: Mapping[int, BoolArray], scaler: Scaler, lookback_window: int
) -> Samples:
    """Gather the usable windows of the `chosen` rows, by asset id and then by time.

    Args:
        tables: asset id → its rows.
        chosen: asset id → mask (N,) of the rows that may end a window.
        scaler: applied after filling gaps forward within each window, as in serving.
        lookback_window: L.
    """
    parts = [_samples(asset_id, table, chosen[asset_id], scaler, lookback_window) for asset_id, table in tables.items()]
    return Samples(
        windows=np.concatenate([part.windows for part in parts]),
        asset_ids=np.concatenate([part.asset_ids for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        timestamps=np.concatenate([part.timestamps for part in parts]),
    )


def _samples(asset_id: int, table: FeatureTable, chosen: BoolArray, scaler: Scaler, lookback_window: int) -> Samples:
    ends = np.flatnonzero(table.usable & chosen)
    steps = np.arange(1 - lookback_window, 1)
    return Samples(
        windows=scaler.transform(fill_forward(table.features[ends[:, None] + steps])),
        asset_ids=np.full(len(ends), asset_id, dtype=np.int64),
        labels=table.labels[ends].astype(np.float32),
        timestamps=table.timestamps[ends],
    )


def _windows(features: FloatArray, lookback_window: int) -> FloatArray:
    """View (N, F) as windows (N - L + 1, L, F)."""
    return sliding_window_view(features, lookback_window, axis=0).swapaxes(1, 2)
