"""What the model learns: is the profit target reached before the stop, within the horizon?"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from serve_app.model import LabelDefinition
from serve_app.types import Bars, FloatArray


def label(bars: Bars, definition: LabelDefinition) -> FloatArray:
    """Label every bar, shape (N,): 1 target first, 0 stop first or neither, NaN where the horizon is not complete.

    Bars t + 1 … t + horizon are read in order; both barriers are inclusive. A bar that touches both counts as a stop:
    its path inside is unknown, and the other choice would flatter the model. NaN too where a price is missing.
    """
    horizon = definition.horizon_bars
    labels = np.full(len(bars), np.nan)
    known = len(bars) - horizon
    if known <= 0:
        return labels
    at_close = definition.entry == "close"
    entry = (bars.columns["close"][:known] if at_close else bars.columns["open"][1 : known + 1])[:, None]
    lows = sliding_window_view(bars.columns["low"][1:], horizon)
    highs = sliding_window_view(bars.columns["high"][1:], horizon)
    stopped = _first(lows <= entry * (1 - definition.stop_loss))
    reached = _first(highs >= entry * (1 + definition.profit_target))
    complete = np.isfinite(entry[:, 0]) & np.isfinite(lows).all(axis=1) & np.isfinite(highs).all(axis=1)
    labels[:known] = np.where(complete, reached < stopped, np.nan)
    return labels


def _first(touched: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Index of the first True of each row, and the row's length where there is none."""
    first: NDArray[np.intp] = np.where(touched.any(axis=1), touched.argmax(axis=1), touched.shape[1])
    return first
