"""Golden cases: raw bars → scaled window → logit → probability → action, as they were when the bundle was built."""

import io
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve_app.types import Float32Array, FloatArray, TimeArray


@dataclass(frozen=True, slots=True)
class Golden:
    """G cases. The bars are stacked in the feature set's column order."""

    symbols: NDArray[np.str_]
    """(G,)"""
    timestamps: TimeArray
    """(G, bars_needed)"""
    bars: FloatArray
    """(G, bars_needed, C)"""
    windows: Float32Array
    """(G, L, F), scaled"""
    logits: Float32Array
    """(G,)"""
    probabilities: FloatArray
    """(G,)"""
    is_long: NDArray[np.bool_]
    """(G,)"""
    held: FloatArray
    """(G,), in the bundle's holding unit"""
    actions: NDArray[np.str_]
    """(G,)"""

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def nothing(cls) -> "Golden":
        """Return no cases at all: what a bundle has while it is being built."""
        none: NDArray[Any] = np.empty(0)
        return cls(**{field.name: none for field in fields(cls)})

    def to_bytes(self) -> bytes:
        """Return the cases as a compressed npz archive, the same bytes for the same cases."""
        buffer = io.BytesIO()
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        # npz has no datetimes without pickle; the unit is fixed by TimeArray.
        arrays["timestamps"] = self.timestamps.astype(np.int64)
        np.savez_compressed(buffer, **arrays)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `to_bytes` wrote, without unpickling anything."""
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {field.name: archive[field.name] for field in fields(cls)}
        arrays["timestamps"] = arrays["timestamps"].astype("datetime64[us]")
        return cls(**arrays)
