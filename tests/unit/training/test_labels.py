from typing import Literal

import numpy as np
import pytest
from pydantic import ValidationError

from serve_app.model import LabelDefinition
from serve_app.training.labels import label
from serve_app.types import Bars, FloatArray

from .market import random_bars, shaken


def bar_by_bar(bars: Bars, definition: LabelDefinition) -> FloatArray:
    """The definition read out loud, as an oracle."""
    labels = np.full(len(bars), np.nan)
    for t in range(len(bars) - definition.horizon_bars):
        labels[t] = 0.0
        entry = bars.columns["close"][t] if definition.entry == "close" else bars.columns["open"][t + 1]
        for j in range(t + 1, t + 1 + definition.horizon_bars):
            if bars.columns["low"][j] <= entry * (1 - definition.stop_loss):
                break
            if bars.columns["high"][j] >= entry * (1 + definition.profit_target):
                labels[t] = 1.0
                break
    return labels


def three_bars(high: float, low: float) -> Bars:
    """Filled at 100 on the middle bar, which reaches `high` and `low`."""
    columns = {"open": [90.0, 100.0, 100.0], "high": [90.0, high, 100.0], "low": [90.0, low, 100.0]}
    timestamp = np.arange(3).astype("datetime64[us]")
    return Bars(timestamp, {name: np.array(values) for name, values in columns.items()})


@pytest.mark.parametrize("horizon", [1, 8, 40])
@pytest.mark.parametrize("barriers", [(0.02, 0.02), (0.05, 0.01)])
@pytest.mark.parametrize("entry", ["next_open", "close"])
def test_labels_are_those_of_a_walk_bar_by_bar(
    barriers: tuple[float, float], horizon: int, entry: Literal["next_open", "close"]
) -> None:
    bars, definition = random_bars(300, seed=4), LabelDefinition(*barriers, horizon, entry)
    labels = label(bars, definition)
    np.testing.assert_array_equal(labels, bar_by_bar(bars, definition))
    assert {0.0, 1.0} <= set(labels) or horizon == 1


@pytest.mark.parametrize(
    ("high", "low", "expected"),
    [(125.0, 100.0, 1.0), (124.9, 100.0, 0.0), (125.0, 75.0, 0.0), (125.0, 75.1, 1.0), (100.0, 75.0, 0.0)],
)
def test_barriers_are_inclusive_and_a_bar_that_touches_both_is_a_stop(high: float, low: float, expected: float) -> None:
    assert label(three_bars(high, low), LabelDefinition(0.25, 0.25, 1))[0] == expected


def test_bars_without_a_complete_horizon_have_no_label() -> None:
    labels = label(random_bars(50, seed=5), LabelDefinition(0.03, 0.03, 8))
    assert np.isnan(labels[-8:]).all()
    assert not np.isnan(labels[:-8]).any()
    assert np.isnan(label(random_bars(5, seed=5), LabelDefinition(0.03, 0.03, 8))).all()


def test_a_missing_price_inside_the_horizon_leaves_no_label() -> None:
    bars = random_bars(30, seed=6)
    bars.columns["low"][20] = np.nan
    labels = label(bars, LabelDefinition(0.03, 0.03, 4))
    assert np.isnan(labels[16:20]).all()
    assert not np.isnan(labels[:16]).any()


def test_a_label_reads_no_bar_beyond_its_horizon() -> None:
    bars, definition = random_bars(100, seed=7), LabelDefinition(0.03, 0.03, 8)
    changed = label(shaken(bars, bars.timestamp[60]), definition)
    np.testing.assert_array_equal(changed[:53], label(bars, definition)[:53])


@pytest.mark.parametrize("wrong", [(0.0, 0.1, 8), (0.1, 0.0, 8), (0.1, 1.0, 8), (0.1, 0.1, 0)])
def test_a_definition_that_no_trade_can_have_is_refused(wrong: tuple[float, float, int]) -> None:
    with pytest.raises(ValidationError, match=r"greater|less"):
        LabelDefinition(*wrong)
