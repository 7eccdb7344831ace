from typing import Any

import numpy as np
import pandas as pd
import pytest

from serve_app.errors import DuplicateTimestamps, InvalidBar, MissingColumns, UnsortedTimestamps, WrongType
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


@pytest.mark.parametrize("by_index", [False, True])
def test_what_comes_back_can_be_the_history_of_the_next_bar(
    history: pd.DataFrame, bars: dict[str, Bars], by_index: bool
) -> None:
    calculator = Tech23Calculator()
    grown = (indexed(history) if by_index else history).iloc[:-30]
    for i in range(len(history) - 30, len(history)):
        grown = align_realtime_data(grown, {**history.iloc[i].to_dict(), "symbol": "IBM"}, calculator)
    assert len(grown) == NEEDED
    assert "symbol" not in grown.columns
    expected = features_of(window(bars["IBM"])).values  # noqa: PD011  no frame
    np.testing.assert_array_equal(grown[list(TECH23.features)].tail(LOOKBACK).to_numpy(), expected)


def test_a_bar_has_the_sentiment_of_the_bar_before_it_and_its_typical_price_where_it_says_nothing(
    history: pd.DataFrame,
) -> None:
    known = history.assign(sentiment_score_hourly_ffill=np.nan, vwap=history["close"]).iloc[:-1]
    known.loc[known.index[-3], "sentiment_score_hourly_ffill"] = 0.8
    last = history.iloc[-1].to_dict()
    grown = align_realtime_data(known, last, Tech23Calculator(neutral_sentiment=0.4))
    assert grown["sentiment_score_hourly_ffill"].tail(6).tolist() == [0.4, 0.4, 0.8, 0.8, 0.8, 0.8]
    assert grown["vwap"].iloc[-2] == history["close"].iloc[-2]
    assert grown["vwap"].iloc[-1] == pytest.approx((last["high"] + last["low"] + last["close"]) / 3, rel=1e-15)


def test_a_calculator_of_elsewhere_may_want_capitals(history: pd.DataFrame) -> None:
    class Title:
        def calculate_all_indicators(self, frame: pd.DataFrame) -> pd.DataFrame:
            return frame.assign(SMA_2=frame["Close"].rolling(2).mean())

    capitals = history.rename(columns={name: name.title() for name in history.columns if name != "timestamp"})
    grown = align_realtime_data(capitals.iloc[:-1], capitals.iloc[-1].to_dict(), Title())
    assert grown["SMA_2"].iloc[-1] == history["close"].tail(2).mean()
    with pytest.raises(MissingColumns, match="the bar lacks Open, High"):
        align_realtime_data(capitals.iloc[:-1], history.iloc[-1].to_dict(), Title())


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
    for grown in (history, history.iloc[:-1]):
        with pytest.raises(WrongType, match="no number"):
            align_realtime_data(grown, {**last, "close": "x"}, calculator)
    with pytest.raises(UnsortedTimestamps, match="is not later than the one before it"):
        align_realtime_data(history.iloc[[0, 2, 1, 5]], last, calculator)
    with pytest.raises(MissingColumns, match="the history lacks volume"):
        align_realtime_data(history.drop(columns="volume"), last, calculator)


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
