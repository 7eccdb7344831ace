"""Technical indicators with finite memory, as pure functions of arrays.

Each takes arrays of shape (..., N), time on the last axis, and returns shape (..., N - memory + 1): the value at t
reads the bars t - memory + 1 … t and nothing else, so it needs no warm-up rule and cannot look ahead. Every sum runs
over exactly those bars in one fixed order, never as a running total: a value is bit for bit the same whatever history
or batch it is computed in.
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from serve_app.types import FloatArray, TimeArray

EMA_TAPS = 200
"""Where the slow EMA is cut: (1 - 2/27)^200 = 2e-7 of its weight lies beyond."""
SIGNAL_TAPS = 51
"""Where the MACD signal's EMA is cut: 0.8^51 = 1e-5 of its weight lies beyond."""


def _weighted_sum(x: FloatArray, weights: FloatArray) -> FloatArray:
    """Σ weights[k] · x[t - k]."""
    total: FloatArray = np.einsum("...k,k->...", sliding_window_view(x, len(weights), axis=-1), weights[::-1].copy())
    return total


def _ratio(numerator: FloatArray, denominator: FloatArray, otherwise: float) -> FloatArray:
    """Numerator / denominator, and `otherwise` where the denominator is zero: a market that did not move."""
    still = denominator == 0
    return np.where(still, otherwise, numerator / np.where(still, 1.0, denominator))


def rolling_sum(x: FloatArray, n: int) -> FloatArray:
    """Sum of the last `n` values. Memory n."""
    return _weighted_sum(x, np.ones(n))


def sma(x: FloatArray, n: int) -> FloatArray:
    """Simple moving average. Memory n."""
    return rolling_sum(x, n) / n


def ema_weights(span: int, taps: int) -> FloatArray:
    """Weights of an exponential moving average cut after `taps` bars, newest first, summing to one."""
    weights = (1 - 2 / (span + 1)) ** np.arange(taps)
    normalised: FloatArray = weights / weights.sum()
    return normalised


def macd_line(close: FloatArray, fast: int = 12, slow: int = 26) -> FloatArray:
    """Fast EMA less slow EMA (Appel). Memory EMA_TAPS."""
    return _weighted_sum(close, ema_weights(fast, EMA_TAPS) - ema_weights(slow, EMA_TAPS))


def macd_signal(line: FloatArray, span: int = 9) -> FloatArray:
    """EMA of the MACD line. Memory SIGNAL_TAPS, of the line."""
    return _weighted_sum(line, ema_weights(span, SIGNAL_TAPS))


def simple_return(x: FloatArray) -> FloatArray:
    """x[t] / x[t - 1] - 1. Memory 2."""
    return x[..., 1:] / x[..., :-1] - 1


def rsi(close: FloatArray, n: int = 14) -> FloatArray:
    """Relative strength index with simple means (Cutler), in [0, 100]; 50 where nothing moved. Memory n + 1."""
    change = np.diff(close)
    gain = rolling_sum(np.maximum(change, 0), n)
    loss = rolling_sum(np.maximum(-change, 0), n)
    return 100 * _ratio(gain, gain + loss, 0.5)


def stochastic_k(high: FloatArray, low: FloatArray, close: FloatArray, n: int = 14) -> FloatArray:
    """Where the close lies in the range of `n` bars, in [0, 100]; 50 where there is no range. Memory n."""
    highest = sliding_window_view(high, n, axis=-1).max(axis=-1)
    lowest = sliding_window_view(low, n, axis=-1).min(axis=-1)
    return 100 * _ratio(close[..., n - 1 :] - lowest, highest - lowest, 0.5)


def true_range(high: FloatArray, low: FloatArray, close: FloatArray) -> FloatArray:
    """Largest of high - low and the two distances from the previous close (Wilder). Memory 2."""
    before = close[..., :-1]
    return np.maximum(high[..., 1:], before) - np.minimum(low[..., 1:], before)


def atr(high: FloatArray, low: FloatArray, close: FloatArray, n: int = 14) -> FloatArray:
    """Simple mean of the true range. Memory n + 1."""
    return sma(true_range(high, low, close), n)


def adx(high: FloatArray, low: FloatArray, n: int = 14) -> FloatArray:
    """Average directional index with simple means in place of Wilder's smoothing, in [0, 100]. Memory 2n."""
    up, down = np.diff(high), -np.diff(low)
    plus = rolling_sum(np.where((up > down) & (up > 0), up, 0.0), n)
    minus = rolling_sum(np.where((down > up) & (down > 0), down, 0.0), n)
    # The true range divides both, so it cancels in the directional index.
    return sma(100 * _ratio(np.abs(plus - minus), plus + minus, 0.0), n)


def bollinger_bandwidth(close: FloatArray, n: int = 20, k: float = 2.0) -> FloatArray:
    """(upper - lower) / middle of the Bollinger bands, sample deviation (ddof 1). Memory n."""
    middle = sma(close, n)
    deviations = sliding_window_view(close, n, axis=-1) - middle[..., None]
    variance = np.einsum("...k,...k->...", deviations, deviations) / (n - 1)
    bandwidth: FloatArray = 2 * k * np.sqrt(variance) / middle
    return bandwidth


def on_balance_volume(close: FloatArray, volume: FloatArray, n: int) -> FloatArray:
    """Volume signed by the change of the close, over `n` bars: OBV less its value n bars ago. Memory n + 1."""
    return rolling_sum(np.sign(np.diff(close)) * volume[..., 1:], n)


def day_of_week(timestamp: TimeArray) -> FloatArray:
    """Weekday in UTC, Monday 0 … Sunday 6. Memory 1."""
    days = timestamp.astype("datetime64[D]").astype(np.int64)
    return ((days + 3) % 7).astype(np.float64)  # 1970-01-01 was a Thursday
