"""Causality over whole histories: whatever comes after bar t, the features and the action at t stay the same.

Serving is never sent a later bar. Training and backtests compute features where later bars exist; a feature that reads
them there teaches the model what it will never see.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from serve_app.audit.histories import PROBABILITY_TOLERANCE, SHOWN, Histories, Progress, iso, silent
from serve_app.batches import PositionBatch, WindowBatch
from serve_app.pipeline import Pipeline, preprocess_of
from serve_app.preprocess import FeatureSet, Preprocess, fill_forward
from serve_app.types import Bars, FloatArray, TimeArray

FACTORS = (0.01, 0.5, 2.0, 100.0)
"""What later bars are multiplied by, each with noise of its own."""
NOISE = 0.2


@dataclass(frozen=True, slots=True)
class Leak:
    """A feature whose value at `time` changed when later bars were multiplied by `factor`; by how much."""

    symbol: str
    time: str
    feature: str
    factor: float
    change: float


@dataclass(frozen=True, slots=True)
class LookaheadReport:
    """What was tried. One try is one decision point under one disturbance of all that comes later."""

    symbols: Mapping[str, int]
    """Symbol → decision points."""
    tries: int
    features: Mapping[str, int]
    """Feature that reads later bars → tries in which it changed."""
    probabilities_changed: int
    actions_changed: int
    first: tuple[Leak, ...]

    @property
    def points(self) -> int:
        """Decision points."""
        return sum(self.symbols.values())

    @property
    def ok(self) -> bool:
        """Whether something was tried and nothing changed."""
        return self.tries > 0 and not (self.features or self.probabilities_changed or self.actions_changed)


@dataclass(slots=True)
class _Tally:
    """The report while it grows."""

    symbols: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    tries: int = 0
    probabilities: int = 0
    actions: int = 0
    first: list[Leak] = field(default_factory=list)


async def audit_lookahead(
    pipeline: Pipeline,
    histories: Histories,
    points: int = 100,
    seed: int = 0,
    feature_set: FeatureSet | None = None,
    progress: Progress = silent,
) -> LookaheadReport:
    """Disturb all that comes after `points` bars of every symbol, in as many ways as there are FACTORS.

    Prices, volume and optional columns are multiplied and later bars are moved to other weekdays; as many later bars
    are present as the longest feature reads. `feature_set` defaults to the one that serves.
    """
    preprocess = preprocess_of(pipeline.bundle)
    if feature_set is not None:
        preprocess = replace(preprocess, feature_set=feature_set)
    rng, tally = np.random.default_rng(seed), _Tally()
    needed = pipeline.bundle.config.bars_needed
    ends = {
        symbol: np.unique(np.linspace(needed, len(bars) - 1, points).astype(int))
        for symbol, bars in histories.bars.items()
    }
    total = sum(map(len, ends.values()))
    for symbol, bars in histories.bars.items():
        for end in ends[symbol].tolist():
            await _try_point(pipeline, preprocess, tally, (symbol, bars, end), rng)
            progress(sum(tally.symbols.values()), total)
    return LookaheadReport(
        symbols=dict(tally.symbols),
        tries=tally.tries,
        features=dict(tally.features.most_common()),
        probabilities_changed=tally.probabilities,
        actions_changed=tally.actions,
        first=tuple(tally.first),
    )


async def _try_point(
    pipeline: Pipeline,
    preprocess: Preprocess,
    tally: _Tally,
    point: tuple[str, Bars, int],
    rng: np.random.Generator,
) -> None:
    symbol, bars, end = point
    config, feature_set = pipeline.bundle.config, preprocess.feature_set
    around = bars.until(end + feature_set.memory)
    n_later = len(around) - end
    around = around.tail(config.bars_needed + n_later)
    stacked, times = _disturbed(feature_set.stack(around, config.exogenous), around.timestamp, n_later, rng)
    with np.errstate(all="ignore"):
        computed = feature_set.compute(stacked, times, config.lookback_window + n_later)
    windows = computed[:, : config.lookback_window]
    time = iso(bars.timestamp[end - 1])
    _note_leaks(tally, symbol, time, windows, feature_set.features)
    probabilities, actions = await _decide(pipeline, preprocess, symbol, windows)
    tally.symbols[symbol] += 1
    tally.tries += len(FACTORS)
    tally.probabilities += int((~(np.abs(probabilities[1:] - probabilities[0]) <= PROBABILITY_TOLERANCE)).sum())
    tally.actions += sum(action != actions[0] for action in actions[1:])


def _disturbed(
    stacked: FloatArray, times: TimeArray, n_later: int, rng: np.random.Generator
) -> tuple[FloatArray, TimeArray]:
    """Bars (1 + K, N, C) and times (1 + K, N): as they were, then with the last `n_later` disturbed in K ways."""
    many = np.repeat(stacked[None], 1 + len(FACTORS), axis=0)
    noise = np.exp(NOISE * rng.standard_normal((len(FACTORS), n_later, stacked.shape[1])))
    many[1:, -n_later:] *= np.array(FACTORS)[:, None, None] * noise
    many_times = np.repeat(times[None], 1 + len(FACTORS), axis=0)
    many_times[1:, -n_later:] += rng.integers(1, 7, len(FACTORS))[:, None] * np.timedelta64(1, "D")
    return many, many_times


def _note_leaks(tally: _Tally, symbol: str, time: str, windows: FloatArray, names: Sequence[str]) -> None:
    original, others = windows[0], windows[1:]
    changed: NDArray[np.bool_] = (others != original) & ~(np.isnan(others) & np.isnan(original))
    for k, column in np.argwhere(changed.any(axis=1)):
        tally.features[names[column]] += 1
        if len(tally.first) < SHOWN:
            row = int(np.flatnonzero(changed[k, :, column])[0])
            change = float(others[k, row, column] - original[row, column])
            tally.first.append(Leak(symbol, time, names[column], FACTORS[k], change))


async def _decide(
    pipeline: Pipeline, preprocess: Preprocess, symbol: str, windows: FloatArray
) -> tuple[FloatArray, Sequence[str]]:
    """Probabilities and the actions of a FLAT position from unscaled windows (B, L, F)."""
    digest, n = pipeline.bundle.digest, len(windows)
    scaled = preprocess.scaler.transform(fill_forward(windows))
    asset_ids = np.full(n, pipeline.bundle.asset_id(symbol), dtype=np.int64)
    predictions = await pipeline.stages.model(WindowBatch(digest, scaled, asset_ids))
    flat = PositionBatch(digest, predictions.probabilities, np.zeros(n, dtype=np.bool_), np.zeros(n))
    return predictions.probabilities, (await pipeline.stages.strategy(flat)).actions
