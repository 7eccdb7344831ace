"""The training reference: what a model saw in training, by symbol, to hold against what it sees today.

It is part of a bundle (`reference.npz`), so that a monitor needs no training data.
"""

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from serve_app import npz
from serve_app.types import Float32Array, FloatArray

SCORE = "score"
"""Name of the last column: the probability that the model gave."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """Of S symbols and F features, the last of which is the score. Features are scaled, as the model sees them."""

    symbols: NDArray[np.str_]
    """(S,)"""
    features: NDArray[np.str_]
    """(F,), in the order of the bundle's list, then `score`"""
    quantiles: Float32Array
    """(S, F, Q): from the smallest value in training to the largest, in even steps of probability"""
    repeats: FloatArray
    """(F,): share of bars at which a value is that of the bar before, although others have changed"""
    ks_limits: FloatArray
    """(F,): Kolmogorov-Smirnov distance of a block of predictions that is no accident; see `training.reference`"""

    def to_bytes(self) -> bytes:
        """Return the arrays as a compressed npz archive, the same bytes for the same reference."""
        return npz.pack({column.name: getattr(self, column.name) for column in fields(self)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Reference":
        """Read what `to_bytes` wrote, without unpickling anything. Raises ValueError, TypeError and KeyError."""
        found = cls(**npz.unpack(content))
        n_features = len(found.features)
        fit = found.quantiles.shape[:2] == (len(found.symbols), n_features)
        if not (fit and found.repeats.shape == found.ks_limits.shape == (n_features,)):
            raise ValueError("its arrays do not fit together")
        return found
