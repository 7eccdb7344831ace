import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from math import ceil, log2
from typing import Any

import numpy as np
import pytest

from serve_app.batches import ActionBatch, PositionBatch, PredictionBatch, RowBatch, WindowBatch
from serve_app.errors import (
    BundleError,
    DigestMismatch,
    NonFinite,
    StageFailed,
    StageUnavailable,
    TooFewBars,
    UnknownSymbol,
    UnusableRequest,
)
from serve_app.model import Bundle
from serve_app.pipeline import ByDigest, Pipeline, preprocess_of, rules_of, strategy_of
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.types import Action, Bars, HoldingUnit, Outcome, Position, PositionStatus, Reason, Row, SignalRequest
from tests.factories import (
    NEEDED,
    Failing,
    RowwiseModel,
    features_of,
    real_requests,
    values,
    window,
    with_columns,
    with_stages,
)

POISON = 0.9
"""A sentiment, by which the stages of these tests recognise the row that they choke on."""
OTHER_DIGEST = "sha256:other"


def outcomes_of(pipeline: Pipeline, rows: Sequence[Row]) -> list[Outcome]:
    return asyncio.run(pipeline.run(rows))


def probabilities_of(pipeline: Pipeline, requests: Sequence[SignalRequest]) -> list[float | None]:
    return values(outcomes_of(pipeline, [pipeline.row(request) for request in requests]), "probability")


@pytest.fixture(scope="module")
def requests(bars: dict[str, Bars]) -> list[SignalRequest]:
    return real_requests(bars, 64)


# One row, many rows, bars or features.


@pytest.mark.parametrize("which", ["pipeline", "candidate"])
def test_a_row_in_a_batch_of_64_has_the_probability_that_it_has_alone(
    which: str, requests: list[SignalRequest], request: pytest.FixtureRequest
) -> None:
    pipeline: Pipeline = request.getfixturevalue(which)
    together = probabilities_of(pipeline, requests)
    alone = [probabilities_of(pipeline, [one])[0] for one in requests]
    assert together == pytest.approx(alone, abs=1e-6)
    assert len(set(together)) == 64, "all rows got the same answer"


def test_the_order_of_a_batch_is_kept(pipeline: Pipeline, requests: list[SignalRequest]) -> None:
    forwards = probabilities_of(pipeline, requests)
    backwards = probabilities_of(pipeline, requests[::-1])
    assert backwards[::-1] == pytest.approx(forwards, abs=1e-6)


def test_features_that_the_client_computed_give_the_probability_of_the_bars(
    pipeline: Pipeline, requests: list[SignalRequest]
) -> None:
    as_features = [replace(r, history=features_of(r.history)) for r in requests if isinstance(r.history, Bars)]
    expected = probabilities_of(pipeline, requests)
    assert probabilities_of(pipeline, as_features) == pytest.approx(expected, abs=1e-6)
    mixed = [pair[i % 2] for i, pair in enumerate(zip(requests, as_features, strict=True))]
    assert probabilities_of(pipeline, mixed) == pytest.approx(expected, abs=1e-6)


def test_more_bars_than_needed_change_nothing(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    needed, all_bars = (pipeline.row(SignalRequest("IBM", b)) for b in (window(bars["IBM"]), bars["IBM"]))
    assert outcomes_of(pipeline, [needed])[0].probability == outcomes_of(pipeline, [all_bars])[0].probability


def test_an_outcome_says_how_large_its_batch_was_and_how_long_each_stage_took(
    pipeline: Pipeline, requests: list[SignalRequest]
) -> None:
    ticks = count()
    ticking = Pipeline(pipeline.bundle, pipeline.stages, clock=lambda: next(ticks) ** 2 / 1e3)
    outcomes = outcomes_of(ticking, [ticking.row(request) for request in requests[:3]])
    assert values(outcomes, "batch_size") == [3, 3, 3]
    for outcome in outcomes:
        assert dict(outcome.timings_ms) == pytest.approx({"preprocess": 1.0, "model": 3.0, "strategy": 5.0})


def test_the_action_follows_from_probability_and_position(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    rows = [pipeline.row(request) for request in real_requests(bars, 64)]
    outcomes = outcomes_of(pipeline, rows)
    threshold = pipeline.bundle.config.strategy.signal_threshold
    for outcome in outcomes:
        assert outcome.probability is not None
        assert outcome.action is (Action.BUY if outcome.probability >= threshold else Action.HOLD)
    assert set(values(outcomes, "action")) == {Action.BUY, Action.HOLD}, "the windows decide nothing"


# Requests → rows.


def test_a_row_of_bars_holds_exactly_what_its_stage_reads(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    position = Position(PositionStatus.LONG, time_in_position_bars=3)
    row = pipeline.row(SignalRequest("IBM", bars["IBM"], position))
    assert row.bars is not None
    assert row.timestamps is not None
    assert row.bars.shape == (NEEDED, 7)
    assert row.timestamps.shape == (NEEDED,)
    assert (row.asset_id, row.is_long, row.held, row.features) == (2, True, 3.0, None)


@pytest.mark.parametrize(
    ("symbol", "n", "error"),
    [("FB", NEEDED, UnknownSymbol), ("AAPL", NEEDED - 1, TooFewBars), ("AAPL", 0, TooFewBars)],
)
def test_a_request_that_cannot_be_answered_never_becomes_a_row(
    pipeline: Pipeline, bars: dict[str, Bars], symbol: str, n: int, error: type[UnusableRequest]
) -> None:
    with pytest.raises(error):
        pipeline.row(SignalRequest(symbol, bars["AAPL"].until(n)))


@pytest.mark.parametrize(
    ("position", "action"),
    [
        (Position(), Action.HOLD),
        (Position(PositionStatus.LONG, time_in_position_bars=7.9), Action.HOLD),
        (Position(PositionStatus.LONG, time_in_position_bars=8), Action.SELL),
        (Position(PositionStatus.LONG, time_in_position_hours=8 * 24), Action.SELL),
        (Position(PositionStatus.LONG, time_in_position_hours=8 * 24 - 0.1), Action.HOLD),
    ],
)
def test_the_fallback_action_is_the_time_exit_in_the_bundles_unit(
    pipeline: Pipeline, position: Position, action: Action
) -> None:
    assert pipeline.fallback_action(position) is action


# A stage that fails on some rows.


def poisoned(request: SignalRequest) -> SignalRequest:
    assert isinstance(request.history, Bars)
    return replace(request, history=with_columns(request.history, **{SENTIMENT: POISON}))


class ChokingModel(RowwiseModel):
    """Raises when a poisoned row is in the batch."""

    def __init__(self, raised: Callable[[], Exception]) -> None:
        super().__init__()
        self.raised = raised

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        answer = await super().run(batch)
        if np.isclose(batch.windows[:, -1, -3], POISON - 0.5).any():
            raise self.raised()
        return answer


def test_poison_reaches_the_model_as_these_tests_assume(pipeline: Pipeline, requests: list[SignalRequest]) -> None:
    batch = pipeline.stack([pipeline.row(poisoned(requests[0])), pipeline.row(requests[0])])
    windows = asyncio.run(preprocess_of(pipeline.bundle).run(batch)).windows
    # The sentiment was constant in training, so that its scale is one.
    assert windows[:, -1, -3].tolist() == pytest.approx([POISON - 0.5, 0.0])


def check_isolation(pipeline: Pipeline, requests: Sequence[SignalRequest], bad: set[int], clean: Pipeline) -> None:
    """The poisoned rows abstain; every other one gets exactly what it gets when nothing is poisoned."""
    rows = [pipeline.row(poisoned(r) if i in bad else r) for i, r in enumerate(requests)]
    outcomes = outcomes_of(pipeline, rows)
    expected = outcomes_of(clean, [clean.row(r) for r in requests])
    assert len(outcomes) == len(requests)
    for i, (outcome, wanted) in enumerate(zip(outcomes, expected, strict=True)):
        if i in bad:
            assert outcome == Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)
        else:
            assert outcome.reason is None
            assert (outcome.probability, outcome.action) == (wanted.probability, wanted.action)


@pytest.mark.parametrize(("n", "bad"), [(n, bad) for n in (1, 2, 3, 5, 8) for bad in range(n)])
def test_a_row_that_a_stage_chokes_on_abstains_alone(
    pipeline: Pipeline, requests: list[SignalRequest], n: int, bad: int
) -> None:
    choking = with_stages(pipeline, model=ChokingModel(lambda: ValueError("a row that no model can digest")).run)
    check_isolation(choking, requests[:n], {bad}, with_stages(pipeline, model=RowwiseModel().run))


@pytest.mark.parametrize("bad", [{0}, {31}, {32}, {63}, {0, 1}, {0, 63}, {31, 32}, {17, 18}, {20, 50}, set(range(64))])
def test_poisoned_rows_of_a_full_batch_abstain_alone_after_few_calls(
    pipeline: Pipeline, requests: list[SignalRequest], bad: set[int]
) -> None:
    model = ChokingModel(lambda: StageFailed("a logit is not finite"))
    check_isolation(
        with_stages(pipeline, model=model.run), requests, bad, with_stages(pipeline, model=RowwiseModel().run)
    )
    assert len(model.batches) <= 2 * len(bad) * ceil(log2(64)) + 1


@pytest.mark.parametrize("bad", [0, 13, 63])
def test_neighbours_of_a_poisoned_row_keep_the_real_models_probabilities(
    pipeline: Pipeline, requests: list[SignalRequest], bad: int
) -> None:
    expected = probabilities_of(pipeline, requests)
    choking = ChokingModel(lambda: ValueError("poison"))

    async def model(batch: WindowBatch) -> PredictionBatch:
        await choking.run(batch)
        return await pipeline.stages.model(batch)

    mixed = [poisoned(r) if i == bad else r for i, r in enumerate(requests)]
    got = probabilities_of(with_stages(pipeline, model=model), mixed)
    assert got.pop(bad) is None
    expected.pop(bad)
    assert got == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("stage", ["preprocess", "strategy"])
def test_any_stage_may_choke(pipeline: Pipeline, requests: list[SignalRequest], stage: str) -> None:
    long = Position(PositionStatus.LONG, time_in_position_bars=6.5)
    rows = [pipeline.row(replace(r, position=long) if i == 2 else r) for i, r in enumerate(requests[:5])]
    rows[2] = replace(rows[2], asset_id=3)
    real: Callable[[Any], Any] = getattr(pipeline.stages, stage)

    async def choking(batch: RowBatch | PositionBatch) -> Any:
        marks = batch.asset_ids == 3 if isinstance(batch, RowBatch) else batch.held == 6.5
        if np.flatnonzero(marks).size:
            raise RuntimeError("poison")
        return await real(batch)

    rows[3] = replace(rows[3], asset_id=1)  # MSFT would be number 3, too
    outcomes = outcomes_of(with_stages(pipeline, **{stage: choking}), rows)
    assert values(outcomes, "reason") == [None, None, Reason.MODEL_UNAVAILABLE, None, None]


def test_a_row_that_chokes_is_logged_with_what_was_raised(
    pipeline: Pipeline, requests: list[SignalRequest], caplog: pytest.LogCaptureFixture
) -> None:
    choking = with_stages(pipeline, model=ChokingModel(lambda: ValueError("a row that no model can digest")).run)
    with caplog.at_level(logging.WARNING):
        outcomes_of(choking, [choking.row(poisoned(requests[0])), choking.row(requests[1])])
    assert "a batch of 2 failed" in caplog.text
    assert "a row that no model can digest" in caplog.text


class OfAnotherLength:
    """Wraps a stage and returns one row too few or too many."""

    def __init__(self, stage: Callable[[Any], Any], rows: slice | list[int]) -> None:
        self._stage, self._rows = stage, rows

    async def run(self, batch: Any) -> Any:
        answer = await self._stage(batch)
        names = [name for name in answer.__slots__ if name != "digest"]
        return replace(answer, **{name: self._cut(getattr(answer, name)) for name in names})

    def _cut(self, rows: Any) -> Any:
        shorter = np.asarray(rows)[self._rows]
        return tuple(Action(a) for a in shorter.tolist()) if isinstance(rows, tuple) else shorter


@pytest.mark.parametrize("rows", [slice(0, -1), [0, 0, *range(1, 9)]], ids=["one too few", "one too many"])
@pytest.mark.parametrize("stage", ["preprocess", "model", "strategy"])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_a_stage_that_answers_another_number_of_rows_answers_none(
    pipeline: Pipeline, requests: list[SignalRequest], stage: str, rows: slice | list[int], n: int
) -> None:
    wrong = OfAnotherLength(getattr(pipeline.stages, stage), rows if isinstance(rows, slice) else rows[: n + 1])
    strange = with_stages(pipeline, **{stage: wrong.run})
    outcomes = outcomes_of(strange, [strange.row(r) for r in requests[:n]])
    assert outcomes == [Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)] * n


def test_stages_that_agree_on_another_number_of_rows_answer_none(
    pipeline: Pipeline, requests: list[SignalRequest]
) -> None:
    async def lenient(batch: PositionBatch) -> ActionBatch:
        return ActionBatch(batch.digest, (Action.BUY,) * len(batch))

    short = OfAnotherLength(RowwiseModel().run, slice(0, -1))
    strange = with_stages(pipeline, model=short.run, strategy=lenient)
    outcomes = outcomes_of(strange, [strange.row(r) for r in requests[:5]])
    assert outcomes == [Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)] * 5


def test_no_rows_have_no_outcomes_whatever_the_stages_do(pipeline: Pipeline) -> None:
    failing = with_stages(pipeline, model=Failing(ValueError("an empty batch")).run)
    assert outcomes_of(failing, []) == []


class NaNProbability(RowwiseModel):
    """A model that does not check what it returns."""

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        answer = await super().run(batch)
        return replace(answer, probabilities=np.full(len(batch), np.nan))


def test_a_probability_that_is_not_a_number_is_an_abstention(pipeline: Pipeline, requests: list[SignalRequest]) -> None:
    unchecked = with_stages(pipeline, model=NaNProbability().run)
    (outcome,) = outcomes_of(unchecked, [unchecked.row(requests[0])])
    assert outcome == Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)


class InfiniteLogit(RowwiseModel):
    """A model whose logits are beyond float32: their sigmoid is exactly 0 or 1, which looks like a probability."""

    def __init__(self, logit: float) -> None:
        super().__init__()
        self._logit = logit

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        answer = await super().run(batch)
        certain = np.full(len(batch), float(self._logit > 0))
        return replace(answer, logits=np.full(len(batch), self._logit, np.float32), probabilities=certain)


@pytest.mark.parametrize("logit", [np.inf, -np.inf])
def test_an_infinite_logit_is_an_abstention_and_not_a_certainty(
    pipeline: Pipeline, requests: list[SignalRequest], logit: float
) -> None:
    certain = with_stages(pipeline, model=InfiniteLogit(logit).run)
    (outcome,) = outcomes_of(certain, [certain.row(requests[0])])
    assert outcome == Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)


def test_features_too_large_for_the_model_are_refused(pipeline: Pipeline, requests: list[SignalRequest]) -> None:
    history = requests[1].history
    assert isinstance(history, Bars)
    features = features_of(history)
    features.values[-1, :] = 1e300  # finite here, infinite in float32
    with pytest.raises(NonFinite, match="open is infinite or beyond"):
        pipeline.row(SignalRequest("GOOG", features))


# A stage that is not there, or holds another bundle.


@pytest.mark.parametrize("stage", ["preprocess", "model", "strategy"])
@pytest.mark.parametrize("error", [StageUnavailable("nobody answers"), DigestMismatch("another bundle")])
def test_when_nobody_is_there_to_answer_all_rows_abstain_after_one_call(
    pipeline: Pipeline, requests: list[SignalRequest], stage: str, error: Exception
) -> None:
    failing = Failing(error)
    absent = with_stages(pipeline, **{stage: failing.run})
    outcomes = outcomes_of(absent, [absent.row(r) for r in requests])
    assert outcomes == [Outcome(Action.HOLD, reason=Reason.MODEL_UNAVAILABLE)] * 64
    assert failing.calls == 1


def test_abstaining_long_positions_past_their_time_are_sold(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    absent = with_stages(pipeline, model=Failing(StageUnavailable("nobody answers")).run)
    positions = [
        Position(),
        Position(PositionStatus.LONG, time_in_position_bars=7),
        Position(PositionStatus.LONG, time_in_position_bars=8),
        Position(PositionStatus.LONG, time_in_position_hours=10_000),
    ]
    rows = [absent.row(SignalRequest("IBM", bars["IBM"], position)) for position in positions]
    outcomes = outcomes_of(absent, rows)
    assert values(outcomes, "action") == [Action.HOLD, Action.HOLD, Action.SELL, Action.SELL]
    assert set(values(outcomes, "probability")) == {None}


def test_a_stage_refuses_a_batch_for_a_bundle_that_it_does_not_hold(
    pipeline: Pipeline, requests: list[SignalRequest]
) -> None:
    stage = ByDigest({"sha256:b": RowwiseModel(), "sha256:a": RowwiseModel()})
    batch = WindowBatch(pipeline.bundle.digest, np.zeros((1, 24, 23), np.float32), np.zeros(1, np.int64))
    with pytest.raises(DigestMismatch) as refusal:
        asyncio.run(stage.run(batch))
    assert str(refusal.value) == (
        f"this stage holds ['sha256:a', 'sha256:b'], the batch is for {pipeline.bundle.digest}"
    )
    strange = with_stages(pipeline, model=stage.run)
    (outcome,) = outcomes_of(strange, [strange.row(requests[0])])
    assert outcome.reason is Reason.MODEL_UNAVAILABLE


def test_a_stage_hands_a_batch_to_the_object_of_its_bundle() -> None:
    one, two = RowwiseModel(), RowwiseModel()
    stage = ByDigest({"sha256:1": one, "sha256:2": two})
    windows = np.zeros((5, 24, 23), np.float32)
    answer = asyncio.run(stage.run(WindowBatch("sha256:2", windows, np.zeros(5, np.int64))))
    assert answer.digest == "sha256:2"
    assert (one.batches, two.batches) == ([], [5])


def test_every_batch_between_stages_names_the_bundle(pipeline: Pipeline, requests: list[SignalRequest]) -> None:
    seen = []

    def watched(stage: Callable[[Any], Any]) -> Callable[[Any], Any]:
        async def run(batch: Any) -> Any:
            seen.append((batch.digest, len(batch)))
            return await stage(batch)

        return run

    stages = {name: watched(getattr(pipeline.stages, name)) for name in ("preprocess", "model", "strategy")}
    watching = with_stages(pipeline, **stages)
    outcomes_of(watching, [watching.row(r) for r in requests[:4]])
    assert seen == [(pipeline.bundle.digest, 4)] * 3


def test_a_cancelled_run_is_cancelled_and_not_taken_for_a_failing_row(
    pipeline: Pipeline, requests: list[SignalRequest]
) -> None:
    async def scenario() -> int:
        started, calls = asyncio.Event(), 0

        async def hanging(_batch: WindowBatch) -> PredictionBatch:
            nonlocal calls
            calls += 1
            started.set()
            await asyncio.Event().wait()
            raise AssertionError("never reached")

        stuck = with_stages(pipeline, model=hanging)
        task = asyncio.create_task(stuck.run([stuck.row(r) for r in requests[:4]]))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return calls

    assert asyncio.run(scenario()) == 1


# A bundle → its stages.


def test_the_stages_of_a_bundle_follow_its_configuration(bundle: Bundle) -> None:
    assert rules_of(bundle).bars_needed == 273
    assert preprocess_of(bundle).scaler.mean.tolist() == bundle.scaler.mean
    strategy = strategy_of(bundle)
    assert strategy.thresholds.signal_threshold == bundle.config.strategy.signal_threshold
    assert strategy.thresholds.holding_unit is HoldingUnit.BARS
    assert strategy.bar_interval.total_seconds() == 86_400


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feature_set": "tech24.v1"}, r"features are not those of tech24\.v1 in this release"),
        ({"feature_list": ("close",)}, r"features are not those of tech23\.v1 in this release"),
        ({"bars_needed": 272}, "declares 272 bars, its features read 273"),
        ({"lookback_window": 25}, "declares 273 bars, its features read 274"),
    ],
)
def test_a_bundle_whose_features_this_release_does_not_compute_is_refused(
    bundle: Bundle, changes: dict[str, Any], message: str
) -> None:
    other = replace(bundle, config=bundle.config.model_copy(update=changes))
    with pytest.raises(BundleError, match=message):
        rules_of(other)


def test_feature_columns_in_another_order_are_other_features(bundle: Bundle) -> None:
    turned = bundle.config.model_copy(update={"feature_list": bundle.config.feature_list[::-1]})
    with pytest.raises(BundleError, match="features are not those"):
        rules_of(replace(bundle, config=turned))


def test_a_bundle_without_a_default_for_an_exogenous_column_is_refused(bundle: Bundle) -> None:
    with pytest.raises(BundleError, match=SENTIMENT):
        rules_of(replace(bundle, config=bundle.config.model_copy(update={"exogenous": {}})))
