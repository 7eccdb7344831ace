"""Whether a model still sees what it was trained on: a verdict for every block of predictions, naming features.

Blocks do not overlap, so that the number of verdicts is known, and with it how many of them are wrong by accident:
`ks_limits` of a reference hold that at one in `FALSE_ALARM_BLOCKS`. A block of 100 predictions has ended at the latest
199 predictions after a change.
"""

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from serve_app.monitor.statistics import ks, outside, psi, ranks, repeated
from serve_app.reference import Reference
from serve_app.types import Float32Array

BLOCK = 100
"""Predictions that are judged together."""
FALSE_ALARM_BLOCKS = 1_000
"""Of so many blocks like those of training, one is called drifted: one false alarm in 100,000 predictions."""
OUTSIDE = 0.05
"""Share of a block outside the range of training that no new high or low explains."""
FROZEN = 0.9
"""Share of bars at which a feature stays as it was, that of one which no longer moves."""
MOVING = 0.5
"""Share below which a feature did so in training."""
MISSING = 0.1
"""Share of a block without the feature."""
_LEAST = 10
"""Values, or pairs of them, below which a share says nothing."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a model saw and said, row by row, oldest first."""

    symbols: tuple[str, ...]
    """(n,)"""
    values: Float32Array
    """(n, F): scaled features of the last bar, NaN where the client had none, then the probability"""
    decision_ids: tuple[str, ...] = ()
    """(n,), where they are known"""

    def of(self, decision_ids: Collection[str]) -> "Seen":
        """Return the rows of some decisions."""
        rows = [i for i, one in enumerate(self.decision_ids) if one in decision_ids]
        return Seen(tuple(self.symbols[i] for i in rows), self.values[rows], tuple(self.decision_ids[i] for i in rows))


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """One feature in one block."""

    ks: float
    ks_limit: float
    psi: float
    outside: float
    frozen: float
    missing: float
    drifted: tuple[str, ...]
    """In what it is unlike training; empty where it is like it."""


def judge(reference: Reference, seen: Seen, rng: np.random.Generator) -> dict[str, FeatureDrift]:
    """Hold what was seen against training, by feature. Every symbol must be one of the reference."""
    place = {str(symbol): i for i, symbol in enumerate(reference.symbols)}
    quantiles = reference.quantiles[[place[symbol] for symbol in seen.symbols]]
    stays, pairs = repeated(seen.values, np.array(seen.symbols))
    verdicts = {}
    for f, name in enumerate(reference.features):
        present = ~np.isnan(seen.values[:, f])
        values, known = seen.values[present, f : f + 1], quantiles[present, f : f + 1]
        missing = 1 - float(present.mean())
        distance = index = beyond = 0.0
        if len(values) >= _LEAST:
            drawn = ranks(values, known, rng)
            distance, index = float(ks(drawn)[0]), float(psi(drawn)[0])
            beyond = float(outside(values, known).mean())
        limit = float(reference.ks_limits[f])
        frozen = float(stays[f]) if pairs >= _LEAST and reference.repeats[f] < MOVING else 0.0
        ways = {
            "distribution": distance > limit,
            "range": beyond > OUTSIDE,
            "frozen": frozen > FROZEN,
            "missing": missing > MISSING,
        }
        drifted = tuple(way for way, is_so in ways.items() if is_so)
        verdicts[str(name)] = FeatureDrift(distance, limit, index, beyond, frozen, missing, drifted)
    return verdicts


class DriftWatch:
    """Gathers what one model saw into blocks, and keeps the verdict on the latest. Not thread-safe."""

    def __init__(self, reference: Reference, rng: np.random.Generator) -> None:
        self._reference = reference
        self._known = {str(symbol) for symbol in reference.symbols}
        self._rng = rng
        self._rows: deque[tuple[str, Float32Array]] = deque()
        self.latest: dict[str, FeatureDrift] | None = None
        """None until the first block has ended."""

    def add(self, seen: Seen) -> None:
        """Take in rows; symbols without a reference are left out."""
        rows = zip(seen.symbols, seen.values, strict=True)
        self._rows.extend((symbol, values) for symbol, values in rows if symbol in self._known)
        while len(self._rows) >= BLOCK:
            block = [self._rows.popleft() for _ in range(BLOCK)]
            symbols, values = zip(*block, strict=True)
            self.latest = judge(self._reference, Seen(symbols, np.stack(values)), self._rng)

    def drifted(self) -> dict[str, tuple[str, ...]]:
        """Return the features that were unlike training in the latest block, and in what."""
        return {name: verdict.drifted for name, verdict in (self.latest or {}).items() if verdict.drifted}

    def snapshot(self) -> dict[str, Any] | None:
        """Return the latest verdict as a document."""
        if self.latest is None:
            return None
        return {
            name: {
                "ks": round(verdict.ks, 4),
                "ks_limit": round(verdict.ks_limit, 4),
                "psi": round(verdict.psi, 4),
                "outside": round(verdict.outside, 4),
                "frozen": round(verdict.frozen, 4),
                "missing": round(verdict.missing, 4),
                "drifted": list(verdict.drifted),
            }
            for name, verdict in self.latest.items()
        }
