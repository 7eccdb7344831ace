"""Made-up bars for the tests of training: a random walk per symbol, from a seed."""

from collections.abc import Mapping

import numpy as np

from serve_app.types import Bars


def random_bars(n: int, seed: int, start: str = "2020-01-01") -> Bars:
    """Hourly bars with open and close inside [low, high]."""
    rng = np.random.default_rng(seed)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, n)))
    opening = np.append(100.0, close[:-1]) * np.exp(rng.normal(0, 0.003, n))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.006, n)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.006, n)))
    volume = rng.uniform(1e5, 1e6, n)
    timestamp = np.datetime64(start, "us") + np.arange(n) * np.timedelta64(1, "h")
    return Bars(timestamp, {"open": opening, "high": high, "low": low, "close": close, "volume": volume})


def random_market(n: int = 700) -> Mapping[str, Bars]:
    """Two long histories, and a late one that has no bar in the training period."""
    late = random_bars(n, 3)
    return {"ZED": random_bars(n, 1), "ABC": random_bars(n, 2), "NEW": late.tail(80)}


def shaken(bars: Bars, after: np.datetime64) -> Bars:
    """The same bars, with everything after an instant changed."""
    factor = np.where(bars.timestamp > after, 1.7, 1.0)
    return Bars(bars.timestamp, {name: values * factor for name, values in bars.columns.items()})
