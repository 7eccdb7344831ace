"""Standard scaling with the parameters of the training period."""

from dataclasses import dataclass

import numpy as np

from serve_app.types import Float32Array, FloatArray


@dataclass(frozen=True, slots=True)
class Scaler:
    """(x - mean) / scale per feature; `mean` and `scale` have shape (F,)."""

    mean: FloatArray
    scale: FloatArray

    def transform(self, features: FloatArray) -> Float32Array:
        """Scale features of shape (..., F) in float64 and return float32, which is what the models take."""
        scaled: Float32Array = ((features - self.mean) / self.scale).astype(np.float32)
        return scaled
