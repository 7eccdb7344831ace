"""Parity: serving must reproduce the golden cases of a bundle, stage by stage, through the code that serves."""

from collections.abc import Awaitable, Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from serve_app.batches import ActionBatch, PositionBatch, RowBatch, WindowBatch
from serve_app.errors import ParityError
from serve_app.model import Bundle, Golden
from serve_app.model.gate import ALLOWED, distance_to_threshold
from serve_app.model.golden import golden_rows
from serve_app.pipeline import Pipeline
from serve_app.preprocess import FeatureSet
from serve_app.types import (
    Bars,
    FeatureRows,
    FloatArray,
    HoldingUnit,
    Position,
    PositionStatus,
    Precision,
    SignalRequest,
)

WINDOW_TOLERANCE = 1e-5
"""Of scaled features: what another machine's arithmetic may change."""


def golden_requests(golden: Golden, feature_set: FeatureSet, unit: HoldingUnit) -> list[SignalRequest]:
    """Return the golden cases as the requests that a client would have sent."""

    def history(case: int) -> Bars | FeatureRows:
        if not feature_set.computed:
            return FeatureRows(feature_set.features, golden.features[case])
        return Bars(golden.timestamps[case], dict(zip(feature_set.columns, golden.bars[case].T, strict=True)))

    def request(case: int) -> SignalRequest:
        status = PositionStatus.LONG if golden.is_long[case] else PositionStatus.FLAT
        held = float(golden.held[case])
        in_bars = unit is HoldingUnit.BARS
        position = Position(status, None if in_bars else held, held if in_bars else None)
        return SignalRequest(str(golden.symbols[case]), history(case), position)

    return [request(case) for case in range(len(golden))]


def _compare(what: str, got: NDArray[np.generic], expected: NDArray[np.generic], tolerance: float) -> None:
    off = np.flatnonzero(~np.isclose(got, expected, rtol=0, atol=tolerance))
    if len(off):
        case = int(off[0])
        raise ParityError(f"golden case {case}: {what} is {got[case]}, the bundle says {expected[case]}", case=case)


def _compare_windows(got: NDArray[np.float32], expected: NDArray[np.float32], features: Sequence[str]) -> None:
    off = np.argwhere(~np.isclose(got, expected, rtol=0, atol=WINDOW_TOLERANCE))
    if len(off):
        case, row, column = map(int, off[0])
        raise ParityError(
            f"golden case {case}: feature {features[column]} in row {row} is {got[case, row, column]} scaled,"
            f" the bundle says {expected[case, row, column]}",
            case=case,
            feature=features[column],
        )


def _refuse_without_cases(bundle: Bundle) -> None:
    if not len(bundle.golden):
        raise ParityError("the bundle has no golden cases, so nothing proves that serving computes what training did")


async def check_preprocess(bundle: Bundle, preprocess: Callable[[RowBatch], Awaitable[WindowBatch]]) -> None:
    """Let preprocess alone reproduce the golden windows. Raises ParityError, and whatever the stage raises."""
    _refuse_without_cases(bundle)
    windows = await preprocess(golden_rows(bundle))
    _compare_windows(windows.windows, bundle.golden.windows, bundle.config.feature_list)


async def check_strategy(bundle: Bundle, strategy: Callable[[PositionBatch], Awaitable[ActionBatch]]) -> None:
    """Let strategy alone take the golden actions from the golden probabilities.

    Raises ParityError, and whatever the stage raises.
    """
    _refuse_without_cases(bundle)
    await _check_actions(bundle, strategy, bundle.golden.probabilities, ALLOWED[Precision.FP32].probability)


async def _check_actions(
    bundle: Bundle,
    strategy: Callable[[PositionBatch], Awaitable[ActionBatch]],
    probabilities: FloatArray,
    margin: float,
) -> None:
    """Compare the actions for golden positions. `margin`: how close to a threshold another action is no error."""
    golden = bundle.golden
    actions = await strategy(PositionBatch(bundle.digest, probabilities, golden.is_long, golden.held))
    clear = distance_to_threshold(golden.probabilities, bundle.config.strategy) > margin
    for case, (got, expected) in enumerate(zip(actions.actions, golden.actions.tolist(), strict=True)):
        if got != expected and clear[case]:
            raise ParityError(f"golden case {case}: the action is {got}, the bundle says {expected}", case=case)


async def check_golden(pipeline: Pipeline) -> None:
    """Run the golden cases through the stages of `pipeline`, one stage after the other.

    Raises ParityError that names the first case, stage and feature that differ, and whatever a stage raises.
    """
    bundle, stages = pipeline.bundle, pipeline.stages
    golden, config = bundle.golden, bundle.config
    _refuse_without_cases(bundle)
    requests = golden_requests(golden, pipeline.feature_set, config.strategy.holding_unit)
    rows = [pipeline.row(request) for request in requests]
    windows = await stages.preprocess(pipeline.stack(rows))
    _compare_windows(windows.windows, golden.windows, config.feature_list)
    predictions = await stages.model(windows)
    allowed = ALLOWED[predictions.precision]
    _compare("logit", predictions.logits, golden.logits, allowed.logit)
    _compare("probability", predictions.probabilities, golden.probabilities, allowed.probability)
    await _check_actions(bundle, stages.strategy, predictions.probabilities, allowed.probability)
