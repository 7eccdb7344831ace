import asyncio
import re
from dataclasses import replace

import numpy as np
import pytest

from serve_app.errors import InvalidPosition, TooFewBars, UnknownSymbol
from serve_app.explain import Steps, decide, explanation, request_of
from serve_app.pipeline import Pipeline, stages_of
from serve_app.types import Action, Bars, PositionStatus
from tests.factories import with_columns


def steps_of(
    pipeline: Pipeline, bars: Bars, symbol: str = "IBM", status: str = "FLAT", held: float | None = None
) -> Steps:
    return asyncio.run(decide(pipeline, request_of(pipeline.bundle, symbol, bars, status, held)))


def test_the_steps_end_in_what_the_pipeline_decides(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    steps = steps_of(pipeline, bars["IBM"])
    (outcome,) = asyncio.run(pipeline.run([pipeline.row(steps.request)]))
    assert (steps.probability, steps.action) == (outcome.probability, outcome.action)
    assert steps.probability == pytest.approx(1 / (1 + np.exp(-steps.logit)))


def test_features_are_shown_as_computed_and_as_scaled(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    steps = steps_of(pipeline, bars["IBM"])
    scaler = pipeline.bundle.scaler
    assert steps.features[3] == bars["IBM"].columns["close"][-1]
    np.testing.assert_allclose(steps.scaled, (steps.features - scaler.mean) / scaler.scale, rtol=1e-6)


def test_the_explanation_shows_bars_features_probability_and_action(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    steps = steps_of(pipeline, bars["IBM"])
    text = explanation(pipeline, steps)
    lines = text.splitlines()
    assert lines[0] == f"IBM with v1.0 (lstm_attention, {pipeline.bundle.digest[:19]}…)"
    assert "bars: 3270 given, the last 273 used, the latest 3:" in text
    assert re.search(r"^  2013-03-01T00:00:00Z .*[\d.]+$", text, re.MULTILINE)
    for name, value in zip(pipeline.bundle.config.feature_list, steps.features, strict=True):
        assert re.search(rf"^  {name} +{re.escape(f'{value:.6f}')} +[+-]\d", text, re.MULTILINE)
    assert f"probability {steps.probability:.6f}" in text
    assert lines[-1].endswith(f"so {steps.action}")


def test_entering_is_explained_by_the_signal_threshold(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    threshold = pipeline.bundle.config.strategy.signal_threshold
    explained = set()
    for end in range(300, 3270, 60):
        steps = steps_of(pipeline, bars["AAPL"].until(end), "AAPL")
        above = steps.probability >= threshold
        sign, action = ("≥", Action.BUY) if above else ("<", Action.HOLD)
        rule = f"{steps.probability:.6f} {sign} signal threshold {threshold:.6f}, so {action}"
        assert explanation(pipeline, steps).endswith(rule)
        explained.add(above)
    assert explained == {True, False}


@pytest.mark.parametrize(
    ("held", "exit_threshold", "rule"),
    [
        (8, None, "held 8 of at most 8 bars; held for the longest allowed time, so SELL"),
        (8, 0.0, "held 8 of at most 8 bars; held for the longest allowed time, so SELL"),
        (7, None, "held 7 of at most 8 bars; no exit threshold is set and the time is not over, so HOLD"),
        (7, 0.0, "≥ exit threshold 0.000000, so HOLD"),
        (7, 1.0, "exit threshold 1.000000, so SELL"),
    ],
)
def test_a_long_position_is_explained_by_the_rule_that_decided(
    pipeline: Pipeline, bars: dict[str, Bars], held: float, exit_threshold: float | None, rule: str
) -> None:
    config = pipeline.bundle.config
    strategy = replace(config.strategy, exit_threshold=exit_threshold)
    bundle = replace(pipeline.bundle, config=config.model_copy(update={"strategy": strategy}))
    exiting = Pipeline(bundle, stages_of(bundle, pipeline.stages.model))
    assert explanation(exiting, steps_of(exiting, bars["IBM"], status="LONG", held=held)).endswith(rule)


def test_columns_of_a_file_that_the_bundle_does_not_know_are_left_out(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    more = with_columns(bars["IBM"], adjusted=1.0, vwap=bars["IBM"].columns["close"])
    request = request_of(pipeline.bundle, "IBM", more, "FLAT", None)
    assert isinstance(request.history, Bars)
    assert set(request.history.columns) == {"open", "high", "low", "close", "volume", "vwap"}


def test_the_time_held_is_in_the_bundles_unit(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    position = request_of(pipeline.bundle, "IBM", bars["IBM"], "LONG", 3).position
    assert (position.status, position.time_in_position_bars) == (PositionStatus.LONG, 3)
    assert position.time_in_position_hours is None


def test_what_cannot_be_decided_cannot_be_explained(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    with pytest.raises(UnknownSymbol):
        steps_of(pipeline, bars["FB"], "FB")
    with pytest.raises(TooFewBars):
        steps_of(pipeline, bars["IBM"].tail(272))
    with pytest.raises(InvalidPosition):
        steps_of(pipeline, bars["IBM"], status="LONG")
