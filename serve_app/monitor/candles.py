"""The bars that clients sent, as the monitor is told of them: of each symbol, each bar once."""

from collections.abc import Mapping
from itertools import islice
from typing import NamedTuple

import numpy as np

from serve_app.types import Bars, FloatArray, TimeArray

SYMBOLS = 1_000
"""Symbols that are followed; of further ones the decisions are shown, without their bars."""
TOLD_SYMBOLS = 100
"""Symbols whose bars are told together: some 15 ms of a router's event loop."""
LENGTH = 300
"""Bars, and decisions, of each symbol."""
PRICES = ("open", "high", "low", "close")


class Candles(NamedTuple):
    """Some bars of one symbol, oldest first."""

    times: TimeArray
    """(k,)"""
    prices: FloatArray
    """(k, 4), by PRICES"""


def candles(bars: Bars, after: np.datetime64 | None) -> Candles | None:
    """Return the complete bars that are younger than `after`, the latest LENGTH; None when there are none."""
    start = 0 if after is None else int(np.searchsorted(bars.timestamp, after, side="right"))
    recent = bars.cut(slice(max(start, len(bars) - LENGTH), None))
    if not len(recent) or not all(name in recent.columns for name in PRICES):
        return None
    prices = np.stack([recent.columns[name] for name in PRICES], axis=1)
    complete = np.isfinite(prices).all(axis=1)
    return Candles(recent.timestamp[complete], prices[complete])


class BarFeed:
    """What one router has to tell of bars: of each symbol those that it has not told yet. Not thread-safe."""

    def __init__(self) -> None:
        self._waiting: dict[str, Bars] = {}
        self._told: dict[str, np.datetime64] = {}

    def add(self, symbol: str, bars: Bars) -> None:
        """Remember the bars that a client sent, in place of those it sent before."""
        if symbol in self._waiting or len(self._waiting) < SYMBOLS:
            self._waiting[symbol] = bars

    @property
    def waits(self) -> bool:
        """Whether there may be something to tell."""
        return bool(self._waiting)

    def take(self) -> dict[str, Candles]:
        """Return what is new of each symbol, of TOLD_SYMBOLS at most: those that wait longest."""
        first = list(islice(self._waiting, TOLD_SYMBOLS))
        found = {symbol: candles(self._waiting.pop(symbol), self._told.get(symbol)) for symbol in first}
        return {symbol: new for symbol, new in found.items() if new is not None}

    def arrived(self, told: Mapping[str, Candles]) -> None:
        """Note that what was taken has been heard: only what is younger is told from now on."""
        if len(self._told) > 10 * SYMBOLS:
            self._told.clear()
        self._told |= {symbol: new.times[-1] for symbol, new in told.items() if len(new.times)}

    def forget(self) -> None:
        """Tell everything again from now on: whoever heard it has lost it."""
        self._told.clear()
