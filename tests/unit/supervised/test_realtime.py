from typing import Any

import numpy as np
import pandas as pd
import pytest

from serve_app.errors import DuplicateTimestamps, InvalidBar, MissingColumns, UnsortedTimestamps
from serve_app.preprocess import TECH23
from serve_app.supervised import SupervisedNNStrategy, Tech23Calculator, align_realtime_data
from serve_app.types import Bars
from tests.factories import LOOKBACK, NEEDED, PRODUCTION, features_of, window
from tests.unit.supervised.conftest import bars_frame


@pytest.fixture
def history(bars: dict[str, Bars]) -> pd.DataFrame:
    return bars_frame(bars["IBM"].tail(NEEDED + 40))


def indexed(frame: pd.DataFrame) -> pd.DataFrame:
    by_time = frame.set_index("timestamp")
    by_time.index = pd.DatetimeIndex(by_time.index)
    return by_time


@pytest.mark.parametrize("by_index", [False, True])
def test_a_history_that_grows_bar_by_bar_has_the_features_of_the_whole(
    history: pd.DataFrame, bars: dict[str, Bars], by_index: bool
) -> None:
    calculator = Tech23Calculator()
    frame = indexed(history) if by_index else history
    grown = frame.iloc[:-20]
    raw = list(frame.columns)
    for i in range(len(history) - 20, len(history)):
        grown = align_realtime_data(grown[raw], history.iloc[i].to_dict(), calculator)
    assert len(grown) == calculator.bars_needed == NEEDED
    expected = features_of(window(bars["IBM"])).values  # noqa: PD011  no frame
    np.testing.assert_array_equal(grown[list(TECH23.features)].tail(LOOKBACK).to_numpy(), expected)
    strategy = SupervisedNNStrategy({"bundle": str(PRODUCTION)})
    by_features, _ = strategy.prepare_input_sequence(grown, "IBM")
    by_bars, _ = strategy.prepare_input_sequence(history, "IBM")
    assert by_features is not None
    assert by_bars is not None
    np.testing.assert_array_equal(by_features, by_bars)


def test_the_same_bar_again_changes_nothing_and_another_one_is_refused(history: pd.DataFrame) -> None:
    calculator, last = Tech23Calculator(), history.iloc[-1].to_dict()
    pd.testing.assert_frame_equal(
        align_realtime_data(history, last, calculator), calculator.calculate_all_indicators(history).tail(NEEDED)
    )
    with pytest.raises(DuplicateTimestamps, match="they differ in close, volume"):
        align_realtime_data(history, {**last, "close": 1.0, "volume": 2.0}, calculator)
    with pytest.raises(UnsortedTimestamps, match="older than the last one"):
        align_realtime_data(history, history.iloc[-2].to_dict(), calculator)


def test_bars_that_are_none_are_refused(history: pd.DataFrame) -> None:
    calculator, last = Tech23Calculator(), history.iloc[-1].to_dict()
    with pytest.raises(MissingColumns, match="the bar lacks timestamp, volume"):
        align_realtime_data(history.iloc[:-1], {k: last[k] for k in ("open", "high", "low", "close")}, calculator)
    with pytest.raises(InvalidBar, match="prices must be > 0"):
        align_realtime_data(history.iloc[:-1], {**last, "low": -1.0}, calculator)


def test_any_calculator_will_do_and_gets_all_rows(history: pd.DataFrame) -> None:
    class Doubling:
        def calculate_all_indicators(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(double=2 * frame["close"])

    grown = align_realtime_data(history.iloc[:-1], history.iloc[-1].to_dict(), Doubling())
    assert len(grown) == len(history)
    assert grown["double"].iloc[-1] == 2 * history["close"].iloc[-1]


def test_times_without_a_zone_are_utc_and_others_are_converted(history: pd.DataFrame) -> None:
    frame = indexed(history).tz_convert("America/New_York").iloc[:-1]
    bar: dict[Any, Any] = {**history.iloc[-1].to_dict(), "timestamp": pd.Timestamp("2013-03-01")}
    grown = align_realtime_data(frame, bar, Tech23Calculator())
    assert grown.index[-1] == pd.Timestamp("2013-03-01T00:00:00Z")
    assert str(pd.DatetimeIndex(grown.index).tz) == "America/New_York"
