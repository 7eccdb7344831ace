"""Golden cases: chosen among real decision points, or among windows drawn from what the scaler knows."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from serve_app.batches import PositionBatch, PredictionBatch, WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import BundleError
from serve_app.model import Bundle, Golden
from serve_app.model.gate import distance_to_threshold
from serve_app.pipeline import Pipeline, local_stages
from serve_app.types import (
    Bars,
    FeatureRows,
    FloatArray,
    HoldingUnit,
    Position,
    PositionStatus,
    SignalRequest,
    Thresholds,
)

N_GOLDEN = 12
N_CANDIDATES = 60
"""Decision points per symbol from which golden cases are drawn."""
CLEAR_MARGIN = 1e-3
"""A golden probability keeps this distance from the threshold, so that another machine's rounding flips no action."""
DRAWN = "drawn from the normal distribution of the scaler's means and deviations, seed 0"


def decision_points(
    bundle: Bundle, bars_by_symbol: Mapping[str, Bars], per_symbol: int = N_CANDIDATES
) -> list[SignalRequest]:
    """Requests spread over the history of every symbol that the bundle knows; the latest is among them."""
    needed = bundle.config.bars_needed
    requests = []
    for symbol in sorted(set(bundle.symbol_to_id) & set(bars_by_symbol)):
        bars = bars_by_symbol[symbol]
        ends = np.unique(np.linspace(needed, len(bars), per_symbol).astype(int))
        requests += [SignalRequest(symbol, bars.until(end).tail(needed)) for end in ends]
    return requests


def drawn_windows(bundle: Bundle, n: int) -> list[SignalRequest]:
    """Requests with made-up features, for a model whose features nobody here can compute; the same ones every time."""
    shape = (n, bundle.config.lookback_window, len(bundle.config.feature_list))
    values = bundle.scaler.mean + np.array(bundle.scaler.scale) * np.random.default_rng(0).standard_normal(shape)
    symbols = cycle(sorted(bundle.symbol_to_id))
    names = bundle.config.feature_list
    return [SignalRequest(symbol, FeatureRows(names, window)) for symbol, window in zip(symbols, values, strict=False)]


def _positions(longest: float, unit: HoldingUnit) -> Iterator[Position]:
    """Positions for cases from the highest probability down: the highest must be FLAT, so that one case buys."""

    def held(time: float) -> Position:
        return Position(PositionStatus.LONG, **{f"time_in_position_{unit}": time})

    return cycle([Position(), held(longest), Position(), held(max(longest - 1, 0.0))])


def _clear(probabilities: FloatArray, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Whether each probability is far enough from every threshold that rounding flips no action."""
    clear: NDArray[np.bool_] = distance_to_threshold(probabilities, thresholds) > CLEAR_MARGIN
    if not clear.any():
        raise BundleError(
            f"every probability is within {CLEAR_MARGIN} of the threshold {thresholds.signal_threshold}, so no golden"
            " case could prove an action: the model answers the same whatever it is asked"
        )
    return clear


async def _predict(pipeline: Pipeline, requests: Sequence[SignalRequest]) -> tuple[WindowBatch, PredictionBatch]:
    windows = await pipeline.stages.preprocess(pipeline.stack([pipeline.row(request) for request in requests]))
    return windows, await pipeline.stages.model(windows)


async def record_golden(bundle: Bundle, candidates: Sequence[SignalRequest]) -> Golden:
    """Take N_GOLDEN of the candidates through the pipeline: highest to lowest probability, with every position.

    Raises BundleError when every probability is too close to a threshold to tell an action by.
    """
    pipeline = Pipeline(bundle, local_stages(bundle, ModelConfig()))
    _, predictions = await _predict(pipeline, candidates)
    strategy = bundle.config.strategy
    clear = _clear(predictions.probabilities, strategy)
    ranked = np.flatnonzero(clear)[np.argsort(predictions.probabilities[clear], kind="stable")]
    chosen = ranked[np.linspace(0, len(ranked) - 1, N_GOLDEN).astype(int)]
    positions = _positions(strategy.max_holding_period, strategy.holding_unit)
    requests = [replace(candidates[i], position=position) for i, position in zip(chosen[::-1], positions, strict=False)]
    rows = [pipeline.row(request) for request in requests]
    windows, predictions = await _predict(pipeline, requests)
    is_long, held = np.array([row.is_long for row in rows]), np.array([row.held for row in rows])
    actions = await pipeline.stages.strategy(PositionBatch(bundle.digest, predictions.probabilities, is_long, held))
    batch = pipeline.stack(rows)
    return Golden(
        symbols=np.array([request.symbol for request in requests]),
        timestamps=batch.timestamps,
        bars=batch.bars,
        windows=windows.windows,
        logits=predictions.logits,
        probabilities=predictions.probabilities,
        is_long=is_long,
        held=held,
        actions=np.array([str(action) for action in actions.actions]),
        features=batch.features if not pipeline.feature_set.computed else np.empty(0),
    )
