"""Parity over whole histories: what serving makes of the bars it is sent is what the full history gives.

A served window comes from `bars_needed` bars through the stages that serve. The window it is held against is cut out
of features computed once over all bars, as training does.
"""

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from serve_app.audit.histories import PROBABILITY_TOLERANCE, SHOWN, Histories, Progress, iso, request_at, silent
from serve_app.batches import WindowBatch
from serve_app.errors import UnusableRequest
from serve_app.pipeline import Pipeline, preprocess_of
from serve_app.preprocess import fill_forward
from serve_app.types import Bars, Float32Array, FloatArray, Row

SERVED_BATCHES = (64, 1, 7, 32)
"""Rows that serving is asked about at once, in turn: its batches vary with the load."""
COMPARED_BATCH = 250
"""Windows from the full history that the model is asked about at once."""


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A window that serving computes otherwise: the time of its last bar, and the first row and feature that differ.

    Row 0 is the oldest. `feature` is None when the windows agree and the probabilities do not.
    """

    symbol: str
    time: str
    feature: str | None
    row: int | None
    served: float
    expected: float


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What was compared, over all symbols. Differences are of scaled features and of probabilities."""

    symbols: Mapping[str, int]
    """Symbol → windows compared."""
    refused: Mapping[str, int]
    """Why serving refuses a window → how many; those are not compared."""
    window_mismatches: int
    probability_mismatches: int
    features: Mapping[str, int]
    """Feature → windows in which it differs."""
    max_difference: float
    max_probability_difference: float
    first: tuple[Mismatch, ...]

    @property
    def windows(self) -> int:
        """Windows compared."""
        return sum(self.symbols.values())

    @property
    def ok(self) -> bool:
        """Whether something was compared and nothing differs."""
        return self.windows > 0 and not self.window_mismatches and not self.probability_mismatches


@dataclass(slots=True)
class _Tally:
    """The report while it grows."""

    names: Sequence[str]
    tolerance: float
    symbols: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    windows_off: int = 0
    probabilities_off: int = 0
    max_difference: float = 0.0
    max_probability_difference: float = 0.0
    first: list[Mismatch] = field(default_factory=list)

    def windows(
        self, symbol: str, times: Sequence[str], served: Float32Array, expected: Float32Array
    ) -> NDArray[np.bool_]:
        """Compare windows (B, L, F); return which differ (B,)."""
        difference, off = _differences(served.astype(np.float64), expected.astype(np.float64), self.tolerance)
        self.max_difference = float(max(self.max_difference, difference.max(initial=0)))
        counts = off.any(axis=1).sum(axis=0)
        self.features.update({name: int(n) for name, n in zip(self.names, counts, strict=True) if n})
        wrong: NDArray[np.bool_] = np.asarray(off.any(axis=(1, 2)))
        self.windows_off += int(wrong.sum())
        for i in np.flatnonzero(wrong)[: SHOWN - len(self.first)]:
            row, column = (int(index[0]) for index in np.nonzero(off[i]))
            values = float(served[i, row, column]), float(expected[i, row, column])
            self.first.append(Mismatch(symbol, times[i], self.names[column], row, *values))
        return wrong

    def probabilities(
        self, symbol: str, times: Sequence[str], pairs: tuple[FloatArray, FloatArray], named: NDArray[np.bool_]
    ) -> None:
        """Compare probabilities (B,); those of windows that were `named` already are counted only."""
        served, expected = pairs
        difference, off = _differences(served, expected, PROBABILITY_TOLERANCE)
        off |= ~np.isfinite(served)
        self.max_probability_difference = float(max(self.max_probability_difference, difference.max(initial=0)))
        self.probabilities_off += int(off.sum())
        for i in np.flatnonzero(off & ~named)[: SHOWN - len(self.first)]:
            self.first.append(Mismatch(symbol, times[i], None, None, float(served[i]), float(expected[i])))

    def report(self) -> ParityReport:
        """Return what was found."""
        return ParityReport(
            symbols=dict(self.symbols),
            refused=dict(self.refused),
            window_mismatches=self.windows_off,
            probability_mismatches=self.probabilities_off,
            features=dict(self.features.most_common()),
            max_difference=self.max_difference,
            max_probability_difference=self.max_probability_difference,
            first=tuple(self.first),
        )


def _differences(got: FloatArray, expected: FloatArray, tolerance: float) -> tuple[FloatArray, NDArray[np.bool_]]:
    """Absolute differences, infinite where only one side is a number, and where they are too large."""
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    with np.errstate(invalid="ignore"):
        distance = np.abs(got - expected)
    difference = np.where(same, 0.0, np.where(np.isnan(distance), np.inf, distance))
    return difference, difference > tolerance


async def audit_parity(
    pipeline: Pipeline, histories: Histories, stride: int = 1, tolerance: float = 0.0, progress: Progress = silent
) -> ParityReport:
    """Compare every `stride`-th decision point of every symbol, the latest among them.

    `tolerance` is of scaled features; 0 means bit for bit. A window that serving refuses is counted with its reason.
    """
    needed = pipeline.bundle.config.bars_needed
    ends = {symbol: np.arange(len(bars), needed - 1, -stride)[::-1] for symbol, bars in histories.bars.items()}
    total, done = sum(map(len, ends.values())), 0
    tally = _Tally(pipeline.feature_set.features, tolerance)
    for symbol, bars in histories.bars.items():
        full = _full_history(pipeline, bars)
        for chunk in _chunks(ends[symbol], COMPARED_BATCH):
            await _compare(pipeline, tally, symbol, bars, full, chunk)
            done += len(chunk)
            progress(done, total)
    return tally.report()


def _full_history(pipeline: Pipeline, bars: Bars) -> FloatArray:
    """Features (N, F) of every bar, from all bars at once."""
    stacked = pipeline.feature_set.stack(bars, pipeline.bundle.config.exogenous)
    features: FloatArray = pipeline.feature_set.compute(stacked[None], bars.timestamp[None], len(bars))[0]
    return features


def _chunks(ends: NDArray[np.intp], size: int) -> Iterator[NDArray[np.intp]]:
    for start in range(0, len(ends), size):
        yield ends[start : start + size]


async def _compare(
    pipeline: Pipeline, tally: _Tally, symbol: str, bars: Bars, full: FloatArray, ends: NDArray[np.intp]
) -> None:
    rows: list[Row] = []
    kept: list[int] = []
    for end in ends.tolist():
        try:
            rows.append(pipeline.row(request_at(symbol, bars, end, pipeline.bundle.config.bars_needed)))
            kept.append(end)
        except UnusableRequest as error:
            tally.refused[error.code] += 1
    if not rows:
        return
    served, probabilities = await _serve(pipeline, rows)
    steps = np.arange(-pipeline.bundle.config.lookback_window, 0)
    windows = fill_forward(full[np.array(kept)[:, None] + steps])
    expected = preprocess_of(pipeline.bundle).scaler.transform(windows)
    asset_ids = np.array([row.asset_id for row in rows], dtype=np.int64)
    predictions = await pipeline.stages.model(WindowBatch(pipeline.bundle.digest, expected, asset_ids))
    times = [iso(bars.timestamp[end - 1]) for end in kept]
    tally.symbols[symbol] += len(rows)
    named = tally.windows(symbol, times, served, expected)
    tally.probabilities(symbol, times, (probabilities, predictions.probabilities), named)


async def _serve(pipeline: Pipeline, rows: Sequence[Row]) -> tuple[Float32Array, FloatArray]:
    """Windows (B, L, F) and probabilities (B,) as the stages that serve give them."""
    windows, probabilities = [], []
    waiting, sizes = deque(rows), cycle(SERVED_BATCHES)
    while waiting:
        size = min(next(sizes), len(waiting))
        batch = await pipeline.stages.preprocess(pipeline.stack([waiting.popleft() for _ in range(size)]))
        windows.append(batch.windows)
        probabilities.append((await pipeline.stages.model(batch)).probabilities)
    return np.concatenate(windows), np.concatenate(probabilities)
