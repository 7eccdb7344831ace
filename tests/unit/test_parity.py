import asyncio
import re
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.batches import ActionBatch, PositionBatch
from serve_app.config import ModelConfig
from serve_app.errors import ParityError, StageUnavailable, UnknownSymbol
from serve_app.model import Bundle, Golden
from serve_app.model.golden import golden_rows
from serve_app.parity import check_golden, golden_requests
from serve_app.pipeline import ByDigest, Pipeline, local_stages, preprocess_of
from serve_app.preprocess import TECH23
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, HIGH, LOW, VOLUME, VWAP, Feature
from serve_app.types import Action, Bars, HoldingUnit, PositionStatus
from tests.factories import Failing, in_torch, on_other_features, with_stages


def check(pipeline: Pipeline) -> None:
    asyncio.run(check_golden(pipeline))


def refusal(pipeline: Pipeline) -> ParityError:
    with pytest.raises(ParityError) as refused:
        check(pipeline)
    return refused.value


def with_golden(pipeline: Pipeline, **arrays: Any) -> Pipeline:
    bundle = replace(pipeline.bundle, golden=replace(pipeline.bundle.golden, **arrays))
    return Pipeline(bundle, pipeline.stages)


def changed(array: Any, where: Any, by: Any) -> Any:
    copy = array.copy()
    copy[where] = copy[where] + by
    return copy


@pytest.mark.parametrize("which", ["pipeline", "candidate"])
def test_the_shipped_bundles_are_reproduced(which: str, request: pytest.FixtureRequest) -> None:
    check(request.getfixturevalue(which))


# Golden cases that say something else.


@pytest.mark.parametrize(("case", "row", "feature"), [(0, 0, "open"), (5, 23, "RSI_14"), (11, 7, "DayOfWeek_cos")])
@pytest.mark.parametrize("by", [2e-4, -1.0, np.nan])
def test_another_feature_is_named_with_its_case_and_row(
    pipeline: Pipeline, case: int, row: int, feature: str, by: float
) -> None:
    where = (case, row, TECH23.features.index(feature))
    error = refusal(with_golden(pipeline, windows=changed(pipeline.bundle.golden.windows, where, by)))
    assert re.search(rf"golden case {case}: feature {feature} in row {row} is .* scaled, the bundle says", str(error))
    assert error.detail == {"case": case, "feature": feature}


@pytest.mark.parametrize(
    ("array", "what", "by"), [("logits", "logit", 2e-4), ("logits", "logit", np.nan), ("probabilities", "probab", 2e-5)]
)
@pytest.mark.parametrize("case", [0, 7, 11])
def test_another_answer_of_the_model_is_named_with_its_case(
    pipeline: Pipeline, array: str, what: str, by: float, case: int
) -> None:
    golden = pipeline.bundle.golden
    error = refusal(with_golden(pipeline, **{array: changed(getattr(golden, array), case, by)}))
    assert re.match(rf"golden case {case}: {what}", str(error))
    assert error.detail == {"case": case}


@pytest.mark.parametrize("case", [0, 3, 11])
def test_another_action_is_named_with_its_case(pipeline: Pipeline, case: int) -> None:
    actions = pipeline.bundle.golden.actions.copy()
    was = actions[case]
    actions[case] = other = "SELL" if was == "BUY" else "BUY"
    error = refusal(with_golden(pipeline, actions=actions))
    assert str(error) == f"golden case {case}: the action is {was}, the bundle says {other}"


@pytest.mark.parametrize(("array", "by"), [("windows", 5e-7), ("logits", 5e-6), ("probabilities", 5e-6)])
def test_what_another_machines_arithmetic_may_change_is_allowed(pipeline: Pipeline, array: str, by: float) -> None:
    golden = pipeline.bundle.golden
    check(with_golden(pipeline, **{array: changed(getattr(golden, array), ..., by)}))


def test_of_several_differences_the_first_stage_is_named(pipeline: Pipeline) -> None:
    golden = pipeline.bundle.golden
    spoilt = with_golden(
        pipeline, windows=golden.windows + 1, logits=golden.logits + 1, probabilities=golden.probabilities / 2
    )
    assert "golden case 0: feature open in row 0" in str(refusal(spoilt))


def test_a_golden_symbol_that_the_bundle_does_not_know_is_refused(pipeline: Pipeline) -> None:
    symbols = pipeline.bundle.golden.symbols.copy()
    symbols[4] = "FB"
    with pytest.raises(UnknownSymbol):
        check(with_golden(pipeline, symbols=symbols))


def test_a_bundle_without_golden_cases_proves_nothing(pipeline: Pipeline) -> None:
    none: Mapping[str, Any] = {name: getattr(pipeline.bundle.golden, name)[:0] for name in Golden.__slots__}
    refusal(with_golden(pipeline, **none))


# Serving code that does something else.

OTHERS = {
    "RSI_14": Feature(11, lambda f: ta.rsi(f[CLOSE], 10)),
    "SMA_20": Feature(19, lambda f: ta.sma(f[CLOSE], 19)),
    "ATR_14": Feature(14, lambda f: ta.atr(f[HIGH], f[LOW], f[CLOSE], 13)),
    "OBV": Feature(91, lambda f: ta.on_balance_volume(f[CLOSE], f[VOLUME], 90)),
    "vwap": Feature(1, lambda f: f[CLOSE]),
    "1h_return": Feature(2, lambda f: -ta.simple_return(f[CLOSE])),
    "DayOfWeek_sin": Feature(1, lambda f: np.sin(2 * np.pi * (ta.day_of_week(f.timestamp) + 1) / 7)),
}


@pytest.mark.parametrize("name", OTHERS)
def test_an_indicator_that_was_changed_is_named(pipeline: Pipeline, name: str) -> None:
    other = replace(TECH23, definitions={**TECH23.definitions, name: OTHERS[name]})
    preprocess = replace(preprocess_of(pipeline.bundle), feature_set=other)
    error = refusal(with_stages(pipeline, preprocess=preprocess.run))
    assert error.detail == {"case": 0, "feature": name}


def test_two_features_that_changed_places_are_named(pipeline: Pipeline) -> None:
    scaler = preprocess_of(pipeline.bundle)
    names = list(TECH23.features)
    i, j = names.index("SMA_10"), names.index("SMA_20")
    names[i], names[j] = names[j], names[i]
    swapped = replace(TECH23, definitions={name: TECH23.definitions[name] for name in names})
    error = refusal(with_stages(pipeline, preprocess=replace(scaler, feature_set=swapped).run))
    assert error.detail["feature"] == "SMA_10"


def test_a_scaler_of_another_bundle_is_found_by_the_first_feature(pipeline: Pipeline) -> None:
    scaler = pipeline.bundle.scaler.model_copy(update={"mean": [m * 1.5 for m in pipeline.bundle.scaler.mean]})
    other = ByDigest({pipeline.bundle.digest: preprocess_of(replace(pipeline.bundle, scaler=scaler))})
    assert refusal(with_stages(pipeline, preprocess=other.run)).detail == {"case": 0, "feature": "open"}


@pytest.mark.parametrize("factor", [0.99, 1.01, -1.0])
def test_weights_that_are_off_are_found_by_the_logit(bundle: Bundle, factor: float) -> None:
    off = replace(in_torch(bundle), weights={name: x * np.float32(factor) for name, x in bundle.weights.items()})
    assert re.match(r"golden case \d+: logit is", str(refusal(Pipeline(off, local_stages(off, ModelConfig())))))


def test_the_model_of_the_candidate_does_not_reproduce_production(pipeline: Pipeline, candidate: Pipeline) -> None:
    async def model(batch: Any) -> Any:
        return await candidate.stages.model(replace(batch, digest=candidate.bundle.digest))

    assert "logit" in str(refusal(with_stages(pipeline, model=model)))


def test_a_strategy_that_decides_otherwise_is_named(pipeline: Pipeline) -> None:
    async def always_hold(batch: PositionBatch) -> ActionBatch:
        return ActionBatch(batch.digest, (Action.HOLD,) * len(batch))

    actions = pipeline.bundle.golden.actions.tolist()
    case = next(case for case, action in enumerate(actions) if action != "HOLD")
    error = refusal(with_stages(pipeline, strategy=always_hold))
    assert str(error) == f"golden case {case}: the action is HOLD, the bundle says {actions[case]}"


def test_a_stage_that_does_not_answer_says_so_itself(pipeline: Pipeline) -> None:
    with pytest.raises(StageUnavailable, match="not yet"):
        check(with_stages(pipeline, model=Failing(StageUnavailable("not yet")).run))


# The cases as requests.


def test_golden_cases_are_requests_that_a_client_could_have_sent(bundle: Bundle) -> None:
    golden = bundle.golden
    requests = golden_requests(golden, TECH23, HoldingUnit.BARS)
    assert [request.symbol for request in requests] == golden.symbols.tolist()
    for case, request in enumerate(requests):
        assert isinstance(request.history, Bars)
        assert set(request.history.columns) == set(TECH23.columns)
        np.testing.assert_array_equal(request.history.columns[VWAP], golden.bars[case, :, 5])
        assert (request.position.status is PositionStatus.LONG) == golden.is_long[case]
        assert request.position.time_in_position_bars == golden.held[case]
        assert request.position.time_in_position_hours is None


def test_a_bundle_that_holds_in_hours_gets_its_cases_in_hours(bundle: Bundle) -> None:
    for case, request in enumerate(golden_requests(bundle.golden, TECH23, HoldingUnit.HOURS)):
        assert request.position.time_in_position_hours == bundle.golden.held[case]
        assert request.position.time_in_position_bars is None


@pytest.mark.parametrize("with_bars", [True, False])
def test_golden_rows_are_the_batch_that_those_requests_make(
    bundle: Bundle, pipeline: Pipeline, tmp_path: Path, with_bars: bool
) -> None:
    if not with_bars:
        bundle = on_other_features(bundle, tmp_path / "v4.0")
    asked = Pipeline(bundle, pipeline.stages)
    requests = golden_requests(bundle.golden, asked.feature_set, bundle.config.strategy.holding_unit)
    expected, rows = asked.stack([asked.row(request) for request in requests]), golden_rows(bundle)
    for field in fields(rows):
        np.testing.assert_array_equal(getattr(rows, field.name), getattr(expected, field.name))
