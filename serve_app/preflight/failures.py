"""What must happen when something goes wrong, made to happen in this process: refusals, a failing stage, no model."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

import numpy as np

from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.doctor import Verdict
from serve_app.errors import (
    DuplicateTimestamps,
    FeaturesNeeded,
    InvalidBar,
    InvalidPosition,
    MissingColumns,
    NonFinite,
    StageUnavailable,
    TooFewBars,
    UnknownColumns,
    UnknownSymbol,
    UnsortedTimestamps,
    UnusableRequest,
)
from serve_app.pipeline import Pipeline
from serve_app.preflight.subject import Found, Subject
from serve_app.preprocess.feature_sets import CLOSE, LOW
from serve_app.types import (
    FLAT,
    Action,
    Bars,
    FeatureRows,
    Float32Array,
    Outcome,
    Position,
    PositionStatus,
    Row,
    SignalRequest,
)

REHEARSAL = "a rehearsal of what happens then"
Malformed = Mapping[str, tuple[SignalRequest, type[UnusableRequest]]]
"""What is wrong → the request, and the error that must refuse it."""
RunModel = Callable[[WindowBatch], Awaitable[PredictionBatch]]


def refusals(subject: Subject) -> Found:
    """Each kind of malformed request is refused with its own error before it joins a batch."""
    pipeline = subject.pipeline
    kinds = _malformed(pipeline, subject.requests[0])
    wrong = [f"{what}: {said}" for what, case in kinds.items() if (said := _fault(pipeline, *case)) is not None]
    if wrong:
        return Found(Verdict.FAIL, "; ".join(wrong), "validation does not hold: do not serve with this installation")
    codes = dict.fromkeys(error.code for _, error in kinds.values())
    return Found(Verdict.OK, f"{len(kinds)} kinds of malformed request refused by name: {', '.join(codes)}")


def _fault(pipeline: Pipeline, request: SignalRequest, expected: type[UnusableRequest]) -> str | None:
    try:
        pipeline.row(request)
    except UnusableRequest as error:
        return None if type(error) is expected else f"refused as {error.code}, not as {expected.code}"
    return f"accepted, not refused as {expected.code}"


def _malformed(pipeline: Pipeline, request: SignalRequest) -> Malformed:
    names, window = pipeline.feature_set.features, pipeline.bundle.config.lookback_window
    rows = FeatureRows(names, np.zeros((window, len(names))))
    bars = _bars_gone_wrong(request.history) if isinstance(request.history, Bars) else _bars_sent(rows)
    histories: Mapping[str, tuple[Bars | FeatureRows, type[UnusableRequest]]] = {**bars, **_rows_gone_wrong(rows)}
    longest = max(pipeline.bundle.symbol_to_id, key=len)
    return {
        "an unknown symbol": (replace(request, symbol=f"{longest}?"), UnknownSymbol),
        "a LONG position without time": (replace(request, position=Position(PositionStatus.LONG)), InvalidPosition),
        **{what: (replace(request, history=history), error) for what, (history, error) in histories.items()},
    }


def _bars_gone_wrong(bars: Bars) -> Mapping[str, tuple[Bars, type[UnusableRequest]]]:
    repeated = bars.timestamp.copy()
    repeated[-1] = repeated[-2]
    backwards = Bars(bars.timestamp[::-1], bars.columns)
    without = {name: values for name, values in bars.columns.items() if name != CLOSE}
    return {
        "bars without a column": (Bars(bars.timestamp, without), MissingColumns),
        "bars with a misspelt column": (_with(bars, "clsoe", 1.0), UnknownColumns),
        "too few bars": (bars.until(len(bars) - 1), TooFewBars),
        "bars out of order": (backwards, UnsortedTimestamps),
        "a bar sent twice": (Bars(repeated, bars.columns), DuplicateTimestamps),
        "a price that is no number": (_with(bars, CLOSE, np.nan), NonFinite),
        "a price below zero": (_with(bars, LOW, -1.0), InvalidBar),
    }


def _bars_sent(rows: FeatureRows) -> Mapping[str, tuple[Bars, type[UnusableRequest]]]:
    """Bars, where only features say something."""
    return {"bars in place of features": (Bars(np.arange(len(rows)).astype("datetime64[us]"), {}), FeaturesNeeded)}


def _rows_gone_wrong(rows: FeatureRows) -> Mapping[str, tuple[FeatureRows, type[UnusableRequest]]]:
    infinite = rows.values.copy()
    infinite[-1, 0] = np.inf
    return {
        "features without a column": (FeatureRows(rows.columns[:-1], rows.values[:, :-1]), MissingColumns),
        "too few rows of features": (FeatureRows(rows.columns, rows.values[1:]), TooFewBars),
        "an infinite feature": (FeatureRows(rows.columns, infinite), NonFinite),
    }


def _with(bars: Bars, column: str, value: float) -> Bars:
    """The bars with one value of one column set in the last bar."""
    values = bars.columns.get(column, np.ones(len(bars))).copy()
    values[-1] = value
    return Bars(bars.timestamp, {**bars.columns, column: values})


def bad_row(subject: Subject) -> Found:
    """A row that makes the model fail abstains; its neighbours in the batch are answered."""
    rows = [subject.pipeline.row(request) for request in subject.requests]
    failed, abstained = asyncio.run(_with_a_bad_row(subject.pipeline, rows))
    if abstained != failed:
        finding = f"the model failed on {sum(failed)} of {len(rows)} rows; {sum(abstained)} abstained"
        return Found(Verdict.FAIL, finding, "one bad row takes others with it: do not serve with this installation")
    answered = len(rows) - sum(failed)
    return Found(Verdict.OK, f"the model made to fail on one of {len(rows)} rows: it abstains, {answered} are answered")


async def _with_a_bad_row(pipeline: Pipeline, rows: list[Row]) -> tuple[list[bool], list[bool]]:
    """For each row, whether the model was made to fail on it, and whether it abstained."""
    windows = (await pipeline.stages.preprocess(pipeline.stack(rows))).windows
    bad = windows[len(rows) // 2]
    outcomes = await _run(pipeline, _failing_on(bad, pipeline.stages.model), rows)
    return [np.array_equal(window, bad) for window in windows], [outcome.probability is None for outcome in outcomes]


def _failing_on(bad: Float32Array, model: RunModel) -> RunModel:
    async def run(batch: WindowBatch) -> PredictionBatch:
        if any(np.array_equal(window, bad) for window in batch.windows):
            raise RuntimeError(REHEARSAL)
        return await model(batch)

    return run


def no_model(subject: Subject) -> Found:
    """Without a model, a LONG position past its holding time is sold all the same, and nothing else happens."""
    strategy = subject.bundle.config.strategy
    cases = {
        FLAT: Action.HOLD,
        _held(0.0, strategy.holding_unit): Action.HOLD,
        _held(strategy.max_holding_period, strategy.holding_unit): Action.SELL,
    }
    rows = [subject.pipeline.row(replace(subject.requests[0], position=position)) for position in cases]
    outcomes = asyncio.run(_run(subject.pipeline, _away, rows))
    if [(o.action, o.probability) for o in outcomes] != [(action, None) for action in cases.values()]:
        finding = f"without a model the actions are {', '.join(o.action for o in outcomes)}"
        return Found(Verdict.FAIL, finding, "exits do not work without a model: do not serve with this installation")
    longest = f"{strategy.max_holding_period:g} {strategy.holding_unit}"
    return Found(Verdict.OK, f"no model answers: LONG since {longest} → SELL, LONG since less and FLAT → HOLD")


def _held(time: float, unit: str) -> Position:
    return Position(PositionStatus.LONG, **{f"time_in_position_{unit}": time})


async def _away(_: WindowBatch) -> PredictionBatch:
    raise StageUnavailable(REHEARSAL)


async def _run(pipeline: Pipeline, model: RunModel, rows: list[Row]) -> list[Outcome]:
    return await Pipeline(pipeline.bundle, replace(pipeline.stages, model=model)).run(rows)
