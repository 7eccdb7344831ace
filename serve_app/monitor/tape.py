"""The tape: the latest bars of each symbol, as clients sent them, and what was decided at them; for people."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.monitor.candles import LENGTH, SYMBOLS, Candles
from serve_app.monitor.observation import Observation

LATEST = 50
"""Decisions that are shown as they come."""


@dataclass(slots=True)
class _Line:
    """One symbol."""

    prices: dict[np.datetime64, list[float]]
    decisions: deque[Observation]


class Tape:
    """The latest bars and decisions. Not thread-safe."""

    def __init__(self) -> None:
        self._lines: dict[str, _Line] = {}
        self._latest: deque[Observation] = deque(maxlen=LATEST)

    def decided(self, observation: Observation) -> None:
        """Take in a decision."""
        self._latest.append(observation)
        if line := self._line(observation.symbol):
            line.decisions.append(observation)

    def traded(self, symbol: str, new: Candles) -> None:
        """Take in bars, in whatever order; of two with one time the later one stays."""
        if line := self._line(symbol):
            prices = line.prices | dict(zip(new.times, new.prices.tolist(), strict=True))
            line.prices = dict(sorted(prices.items())[-LENGTH:])

    def _line(self, symbol: str) -> _Line | None:
        if symbol not in self._lines and len(self._lines) < SYMBOLS:
            self._lines[symbol] = _Line({}, deque(maxlen=LENGTH))
        return self._lines.get(symbol)

    def latest(self) -> dict[str, Any]:
        """Return the latest decisions, newest first, and the symbols that `chart` knows."""
        return {"decisions": _documents(reversed(self._latest)), "symbols": sorted(self._lines)}

    def chart(self, symbol: str) -> dict[str, Any]:
        """Return the bars of a symbol and what was decided at them, oldest first; nothing where nothing is known."""
        line = self._lines.get(symbol) or _Line({}, deque())
        bars = [[_seconds(time), *prices] for time, prices in line.prices.items()]
        return {"symbol": symbol, "bars": bars, "decisions": _documents(line.decisions)}


def _seconds(time: np.datetime64) -> int:
    return int(time.astype("datetime64[s]").astype(np.int64))


def _documents(observations: Iterable[Observation]) -> list[dict[str, Any]]:
    return [
        {
            "decision_id": one.decision_id,
            "symbol": one.symbol,
            "timestamp": one.timestamp,
            "probability": one.probability,
            "action": one.kind.action,
            "reason": one.kind.reason,
            "variant": one.kind.variant,
            "model_version": one.kind.model_version,
            "latency_ms": round(one.latency_ms, 3),
        }
        for one in observations
    ]
