import asyncio
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from serve_app.batches import PositionBatch
from serve_app.errors import InvalidPosition
from serve_app.strategy import Strategy
from serve_app.types import Action, HoldingUnit, Position, PositionStatus, Thresholds

BUY, SELL, HOLD = Action.BUY, Action.SELL, Action.HOLD
FLAT, LONG = PositionStatus.FLAT, PositionStatus.LONG
HOURS, BARS = HoldingUnit.HOURS, HoldingUnit.BARS
HOURLY, DAILY = timedelta(hours=1), timedelta(days=1)


def strategy(unit: HoldingUnit = HOURS, interval: timedelta = HOURLY, **thresholds: Any) -> Strategy:
    return Strategy(Thresholds(holding_unit=unit, **thresholds), interval)


def just_below(x: float) -> float:
    return float(np.nextafter(x, -np.inf))


def just_above(x: float) -> float:
    return float(np.nextafter(x, np.inf))


def test_the_defaults_are_those_of_older_trading_code() -> None:
    assert Thresholds() == Thresholds(0.7, None, 8, HOURS)


# When there is no position.


@pytest.mark.parametrize(
    ("probability", "action"),
    [(0.0, HOLD), (just_below(0.7), HOLD), (0.7, BUY), (just_above(0.7), BUY), (1.0, BUY)],
)
def test_a_position_is_entered_at_or_above_the_signal_threshold(probability: float, action: Action) -> None:
    assert strategy().action(probability, is_long=False, held=0.0) is action


@pytest.mark.parametrize("held", [0.0, 8.0, 1e9])
@pytest.mark.parametrize("exit_threshold", [None, 0.3, 1.0])
def test_a_flat_position_is_never_sold(held: float, exit_threshold: float | None) -> None:
    assert strategy(exit_threshold=exit_threshold).action(0.1, is_long=False, held=held) is HOLD


# When there is one.


@pytest.mark.parametrize(
    ("held", "action"), [(0.0, HOLD), (just_below(8.0), HOLD), (8.0, SELL), (just_above(8.0), SELL), (1e9, SELL)]
)
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_a_long_position_is_sold_when_held_for_the_longest_time(
    held: float, action: Action, probability: float
) -> None:
    assert strategy().action(probability, is_long=True, held=held) is action


@pytest.mark.parametrize(
    ("probability", "action"), [(0.0, SELL), (just_below(0.3), SELL), (0.3, SELL), (just_above(0.3), HOLD), (1.0, HOLD)]
)
def test_a_long_position_is_sold_at_or_below_the_exit_threshold(probability: float, action: Action) -> None:
    assert strategy(exit_threshold=0.3).action(probability, is_long=True, held=1.0) is action


def test_an_exit_threshold_of_zero_is_not_the_same_as_none() -> None:
    assert strategy(exit_threshold=0.0).action(0.0, is_long=True, held=1.0) is SELL
    assert strategy(exit_threshold=None).action(0.0, is_long=True, held=1.0) is HOLD


def test_the_time_exit_wins_over_a_probability_that_would_stay() -> None:
    assert strategy(exit_threshold=0.3).action(0.99, is_long=True, held=8.0) is SELL


@pytest.mark.parametrize("probability", [0.0, 0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize("held", [0.0, 7.9, 8.0, 100.0])
@pytest.mark.parametrize("exit_threshold", [None, 0.3])
def test_a_long_position_never_buys(probability: float, held: float, exit_threshold: float | None) -> None:
    assert strategy(exit_threshold=exit_threshold).action(probability, is_long=True, held=held) is not BUY


@pytest.mark.parametrize("exit_threshold", [None, 0.9])
@pytest.mark.parametrize(
    ("is_long", "held", "action"),
    [(False, 0.0, HOLD), (False, 99.0, HOLD), (True, just_below(8.0), HOLD), (True, 8.0, SELL), (True, 99.0, SELL)],
)
def test_without_a_model_only_the_time_exit_fires(
    is_long: bool, held: float, action: Action, exit_threshold: float | None
) -> None:
    assert strategy(exit_threshold=exit_threshold).action_without_model(is_long, held) is action


# How long it has been held.


@pytest.mark.parametrize(
    ("unit", "interval", "hours", "bars", "held"),
    [
        (HOURS, HOURLY, 3.5, None, 3.5),
        (HOURS, HOURLY, 3.5, 2.0, 3.5),  # the bundle's own unit counts when both are given
        (HOURS, DAILY, None, 2.0, 48.0),
        (HOURS, timedelta(minutes=15), None, 10.0, 2.5),
        (BARS, DAILY, None, 5.0, 5.0),
        (BARS, DAILY, 240.0, 5.0, 5.0),
        (BARS, DAILY, 36.0, None, 1.5),
        (BARS, timedelta(minutes=15), 2.0, None, 8.0),
        (HOURS, HOURLY, 0.0, None, 0.0),
        (HOURS, DAILY, None, 0.0, 0.0),
        (BARS, DAILY, 0.0, None, 0.0),
        (BARS, DAILY, 48.0, 0.0, 0.0),  # zero bars are given, and not missing
    ],
)
def test_the_time_held_is_counted_in_the_bundles_unit(
    unit: HoldingUnit, interval: timedelta, hours: float | None, bars: float | None, held: float
) -> None:
    assert strategy(unit, interval).held(Position(LONG, hours, bars)) == pytest.approx(held, abs=1e-12)


@pytest.mark.parametrize("unit", HoldingUnit)
def test_a_long_position_without_a_time_is_refused_with_the_unit_to_give(unit: HoldingUnit) -> None:
    with pytest.raises(InvalidPosition, match=f"needs position.time_in_position_{unit}") as refusal:
        strategy(unit).held(Position(LONG))
    assert refusal.value.detail == {"field": "time_in_position"}


@pytest.mark.parametrize("unit", HoldingUnit)
def test_a_flat_position_needs_no_time(unit: HoldingUnit) -> None:
    assert strategy(unit).held(Position()) == 0.0


@pytest.mark.parametrize("status", PositionStatus)
@pytest.mark.parametrize("field", ["time_in_position_hours", "time_in_position_bars"])
@pytest.mark.parametrize("value", [-1e-9, -5.0, float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("unit", HoldingUnit)
def test_a_time_that_cannot_be_is_refused_whatever_the_unit(
    unit: HoldingUnit, value: float, field: str, status: PositionStatus
) -> None:
    good = {"time_in_position_hours": 1.0, "time_in_position_bars": 1.0}
    with pytest.raises(InvalidPosition, match=rf"position\.{field} is .*; it must be a finite number >= 0") as refusal:
        strategy(unit).held(Position(status, **{**good, field: value}))
    assert refusal.value.detail == {"field": field}


# The stage.


def test_a_batch_is_decided_row_by_row_in_its_order() -> None:
    batch = PositionBatch(
        digest="sha256:0",
        probabilities=np.array([0.7, 0.69, 0.9, 0.9, 0.1]),
        is_long=np.array([False, False, True, True, True]),
        held=np.array([0.0, 0.0, 7.0, 8.0, 1.0]),
    )
    decided = asyncio.run(strategy(exit_threshold=0.2).run(batch))
    assert decided.actions == (BUY, HOLD, HOLD, SELL, SELL)
    assert decided.digest == "sha256:0"


def test_a_batch_whose_arrays_differ_in_length_is_an_error() -> None:
    batch = PositionBatch("sha256:0", np.array([0.7]), np.array([False, False]), np.array([0.0, 0.0]))
    with pytest.raises(ValueError, match="zip"):
        asyncio.run(strategy().run(batch))
