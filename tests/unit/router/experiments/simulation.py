"""A market on which two models are compared: symbols share its shocks, and outcomes look several bars ahead."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from serve_app.router.experiments import Pairs
from serve_app.types import FloatArray

SYMBOLS, HORIZON = 20, 8
MARKET = 0.6
"""Of the variance of a return, and of a model's error: the share that all symbols have in common."""
SIGNAL = 0.25
"""What of a return can be known before, in standard deviations of the return over the horizon."""
HOUR = np.timedelta64(3_600_000_000, "us")


def _shared(rng: np.random.Generator, bars: int) -> FloatArray:
    """Standard normal values (bars, SYMBOLS), of which a part is the same for all symbols of a bar."""
    common, own = rng.normal(size=(bars, 1)), rng.normal(size=(bars, SYMBOLS))
    return np.asarray(np.sqrt(MARKET) * common + np.sqrt(1 - MARKET) * own)


def market(seed: int, bars: int, errors: tuple[float, float]) -> Pairs:
    """Let models with errors of these standard deviations (production, candidate) predict rises over HORIZON bars.

    Models that err alike have no true difference, whatever else is in the data.
    """
    rng = np.random.default_rng(seed)
    known_before = SIGNAL * rng.normal(size=(bars, SYMBOLS))
    returns = _shared(rng, bars + HORIZON)
    ahead = np.lib.stride_tricks.sliding_window_view(returns[1:], HORIZON, axis=0).sum(axis=-1)
    rises: NDArray[np.bool_] = ahead / np.sqrt(HORIZON) + known_before > 0
    production, candidate = (np.clip(norm.cdf(known_before) + e * _shared(rng, bars), 0.01, 0.99) for e in errors)
    time = np.datetime64("2020-01-01", "us") + HOUR * np.arange(bars)
    times = np.repeat(time, SYMBOLS)
    return Pairs(times, times + HORIZON * HOUR, production.ravel(), candidate.ravel(), rises.ravel())


def naive_rejects(pairs: Pairs) -> bool:
    """Whether a z-test that takes every prediction for a sample of its own finds a difference after some bar."""
    difference = (pairs.candidate - pairs.outcome) ** 2 - (pairs.production - pairs.outcome) ** 2
    z = np.cumsum(difference) / np.sqrt(np.cumsum(difference**2))
    return bool((np.abs(z[30 * SYMBOLS :: SYMBOLS]) > norm.ppf(0.975)).any())
