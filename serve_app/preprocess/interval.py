"""How far apart bars are."""

from collections.abc import Mapping

import numpy as np

from serve_app.types import Bars


def usual_interval_s(bars_by_symbol: Mapping[str, Bars]) -> float:
    """Return the usual time from one bar to the next, in seconds; weekends and nights are the exception."""
    steps = np.concatenate([np.diff(bars.timestamp) for bars in bars_by_symbol.values()])
    return float(np.median(steps.astype("timedelta64[us]").astype(np.int64))) / 1e6
