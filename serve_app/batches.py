"""What goes between stages: batches of arrays, row i of the answer belonging to row i of the question.

`RowBatch` (router → preprocess) → `WindowBatch` (→ model) → `PredictionBatch` → with `PositionBatch` (→ strategy)
→ `ActionBatch`. Each names the digest of the bundle it is meant for.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.types import Action, Float32Array, FloatArray, Precision, Thresholds, TimeArray


@dataclass(frozen=True, slots=True)
class RowBatch:
    """What preprocess takes: B rows, those with bars and those with features each stacked.

    `bars` (Nb, N, C) and `timestamps` (Nb, N) belong to the rows where `has_bars` (B,) is true, `features`
    (Nf, L, F) to the others, in order. `asset_ids` is (B,).
    """

    digest: str
    asset_ids: NDArray[np.int64]
    has_bars: NDArray[np.bool_]
    bars: FloatArray
    timestamps: TimeArray
    features: FloatArray

    def __len__(self) -> int:
        return len(self.asset_ids)


@dataclass(frozen=True, slots=True)
class WindowBatch:
    """What the model takes: scaled windows (B, L, F) and asset ids (B,)."""

    digest: str
    windows: Float32Array
    asset_ids: NDArray[np.int64]
    missing: NDArray[np.bool_] | None = None
    """(B, F): what the last bar lacked, so that an earlier value stands there; None where nothing was lacking."""

    def __len__(self) -> int:
        return len(self.asset_ids)


@dataclass(frozen=True, slots=True)
class PredictionBatch:
    """What the model gives: logits (B,) and their sigmoid (B,), and in what precision they were computed."""

    digest: str
    logits: Float32Array
    probabilities: FloatArray
    precision: Precision = Precision.FP32

    def __len__(self) -> int:
        return len(self.logits)


@dataclass(frozen=True, slots=True)
class PositionBatch:
    """What the strategy takes: probabilities (B,), whether LONG (B,), time held in the thresholds' unit (B,)."""

    digest: str
    probabilities: FloatArray
    is_long: NDArray[np.bool_]
    held: FloatArray
    thresholds: Thresholds | None = None
    """Of the release, in place of the bundle's."""

    def __len__(self) -> int:
        return len(self.probabilities)


@dataclass(frozen=True, slots=True)
class ActionBatch:
    """What the strategy gives."""

    digest: str
    actions: tuple[Action, ...]

    def __len__(self) -> int:
        return len(self.actions)
