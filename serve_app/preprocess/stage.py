"""The preprocess stage: a batch of validated rows → a batch of scaled windows."""

from dataclasses import dataclass

import numpy as np

from serve_app.batches import RowBatch, WindowBatch
from serve_app.preprocess.feature_sets import FeatureSet
from serve_app.preprocess.scaling import Scaler
from serve_app.types import FloatArray


def fill_forward(features: FloatArray) -> FloatArray:
    """Fill NaN with the last value before it in the window, never from a later row. Shape (B, L, F)."""
    missing = np.isnan(features)
    if not missing.any():
        return features
    rows = np.arange(features.shape[1])[None, :, None]
    source = np.maximum.accumulate(np.where(missing, 0, rows), axis=1)
    return np.take_along_axis(features, source, axis=1)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Features, gaps filled forward, scaled: exactly what training did."""

    feature_set: FeatureSet
    lookback_window: int
    scaler: Scaler

    def features(self, batch: RowBatch) -> FloatArray:
        """Return the features (B, L, F) of B rows, unscaled, with gaps filled forward."""
        return fill_forward(self._with_gaps(batch))

    def _with_gaps(self, batch: RowBatch) -> FloatArray:
        features = np.empty((len(batch), self.lookback_window, len(self.feature_set.features)))
        features[~batch.has_bars] = batch.features
        if batch.has_bars.any():
            computed = self.feature_set.compute(batch.bars, batch.timestamps, self.lookback_window)
            features[batch.has_bars] = computed
        return features

    def windows(self, batch: RowBatch) -> WindowBatch:
        """Turn B rows into windows (B, L, F)."""
        features = self._with_gaps(batch)
        missing = np.isnan(features[:, -1])
        scaled = self.scaler.transform(fill_forward(features))
        return WindowBatch(batch.digest, scaled, batch.asset_ids, missing if missing.any() else None)

    async def run(self, batch: RowBatch) -> WindowBatch:
        """Do what `windows` does."""
        return self.windows(batch)
