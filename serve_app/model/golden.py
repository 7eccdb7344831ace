"""Golden cases: bars or features → scaled window → logit → probability → action, as when the bundle was built."""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from serve_app import npz
from serve_app.batches import RowBatch, WindowBatch
from serve_app.types import Float32Array, FloatArray, TimeArray

if TYPE_CHECKING:
    from serve_app.model.bundle import Bundle


@dataclass(frozen=True, slots=True)
class Golden:
    """G cases, of bars stacked in the feature set's column order or, without a feature set, of unscaled features."""

    symbols: NDArray[np.str_]
    """(G,)"""
    timestamps: TimeArray
    """(G, bars_needed); none with features"""
    bars: FloatArray
    """(G, bars_needed, C); none with features"""
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
    features: FloatArray = field(default_factory=lambda: np.empty(0))
    """(G, L, F), unscaled; empty with bars"""

    def __len__(self) -> int:
        return len(self.symbols)

    @classmethod
    def nothing(cls) -> "Golden":
        """Return no cases at all: what a bundle has while it is being built."""
        none: NDArray[Any] = np.empty(0)
        return cls(**{column.name: none for column in fields(cls)})

    def to_bytes(self) -> bytes:
        """Return the cases as a compressed npz archive, the same bytes for the same cases."""
        arrays = {column.name: getattr(self, column.name) for column in fields(self)}
        # npz has no datetimes without pickle; the unit is fixed by TimeArray.
        return npz.pack({**arrays, "timestamps": self.timestamps.astype(np.int64)})

    @classmethod
    def from_bytes(cls, content: bytes) -> "Golden":
        """Read what `to_bytes` wrote, without unpickling anything."""
        arrays = npz.unpack(content)
        return cls(**{**arrays, "timestamps": arrays["timestamps"].astype("datetime64[us]")})


def _asset_ids(bundle: "Bundle") -> NDArray[np.int64]:
    return np.array([bundle.asset_id(str(symbol)) for symbol in bundle.golden.symbols], dtype=np.int64)


def golden_rows(bundle: "Bundle") -> RowBatch:
    """Return a bundle's golden histories as preprocess takes them. Raises UnknownSymbol."""
    golden, with_bars = bundle.golden, bundle.config.feature_set is not None
    return RowBatch(
        digest=bundle.digest,
        asset_ids=_asset_ids(bundle),
        has_bars=np.full(len(golden), with_bars),
        bars=golden.bars,
        timestamps=golden.timestamps,
        features=np.empty((0, *golden.windows.shape[1:])) if with_bars else golden.features,
    )


def golden_batch(bundle: "Bundle", rows: int) -> WindowBatch:
    """Return a batch of a bundle's golden windows, in turn until there are enough."""
    golden = bundle.golden
    windows = np.resize(golden.windows, (rows, *golden.windows.shape[1:]))
    return WindowBatch(bundle.digest, windows, np.resize(_asset_ids(bundle), rows))
