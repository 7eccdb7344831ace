from dataclasses import replace

import numpy as np
import pytest

from serve_app.preprocess import FEATURE_SETS, TECH23, FeatureSet
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, SENTIMENT, VOLUME, VWAP, Feature
from serve_app.types import Bars, FloatArray
from tests.factories import LOOKBACK, NEEDED, NEUTRAL, flat_bars, with_columns
from tests.sizes import size

# Names and order of the models that are trained elsewhere, confirmed against the means of their scalers.
NAMES = (
    "open",
    "high",
    "low",
    "close",
    "volume",
    "vwap",
    "SMA_10",
    "SMA_20",
    "MACD_line",
    "MACD_signal",
    "MACD_hist",
    "RSI_14",
    "Stoch_K",
    "Stoch_D",
    "ADX_14",
    "ATR_14",
    "BB_bandwidth",
    "OBV",
    "Volume_SMA_20",
    "1h_return",
    "sentiment_score_hourly_ffill",
    "DayOfWeek_sin",
    "DayOfWeek_cos",
)
MEMORY = (1, 1, 1, 1, 1, 1, 10, 20, 200, 250, 250, 15, 14, 16, 28, 15, 20, 101, 20, 2, 1, 1, 1)
LONG_ENOUGH = ("AAPL", "GOOG", "IBM", "MSFT")


def compute(bars: Bars, rows: int, feature_set: FeatureSet = TECH23) -> FloatArray:
    features: FloatArray = feature_set.compute(feature_set.stack(bars, NEUTRAL)[None], bars.timestamp[None], rows)[0]
    return features


def column(features: FloatArray, name: str) -> FloatArray:
    values: FloatArray = features[..., NAMES.index(name)]
    return values


def test_the_features_are_these_in_this_order() -> None:
    assert TECH23.features == NAMES
    assert FEATURE_SETS == {"tech23.v1": TECH23}


def test_a_window_of_24_rows_needs_273_bars() -> None:
    assert TECH23.memory == 250
    assert TECH23.bars_needed(24) == 273
    assert TECH23.bars_needed(1) == 250


# Finite memory: serving from a window sees what training saw in the whole history.


@pytest.mark.parametrize("symbol", LONG_ENOUGH)
def test_cutting_the_history_to_the_bars_needed_changes_no_feature_by_a_bit(bars: dict[str, Bars], symbol: str) -> None:
    history = bars[symbol]
    full = compute(history, len(history))
    stacked = TECH23.stack(history, NEUTRAL)
    ends = np.unique(np.linspace(NEEDED, len(history), size("history ends per symbol")).astype(int))
    for some in np.array_split(ends, -(-len(ends) // 100)):
        bar = some[:, None] + np.arange(-NEEDED, 0)
        windows = TECH23.compute(stacked[bar], history.timestamp[bar], LOOKBACK)
        row = some[:, None] + np.arange(-LOOKBACK, 0)
        np.testing.assert_array_equal(windows, full[row])


@pytest.mark.parametrize("rows", [1, 2, 7, LOOKBACK])
def test_fewer_rows_are_the_last_of_more_rows_bit_for_bit(bars: dict[str, Bars], rows: int) -> None:
    history = bars["IBM"].tail(400)
    needed = history.tail(TECH23.bars_needed(rows))
    np.testing.assert_array_equal(compute(needed, rows), compute(history, 150)[-rows:])


def test_a_batch_of_symbols_equals_each_alone_bit_for_bit(bars: dict[str, Bars]) -> None:
    windows = [bars[symbol].tail(NEEDED + ago).timestamp for symbol in LONG_ENOUGH for ago in range(16)]
    histories = [
        Bars(times[:NEEDED], {n: x[-len(times) :][:NEEDED] for n, x in bars[LONG_ENOUGH[i // 16]].columns.items()})
        for i, times in enumerate(windows)
    ]
    stacked = np.stack([TECH23.stack(history, NEUTRAL) for history in histories])
    together = TECH23.compute(stacked, np.stack([history.timestamp for history in histories]), LOOKBACK)
    assert len(together) == 64
    for history, row in zip(histories, together, strict=True):
        np.testing.assert_array_equal(compute(history, LOOKBACK), row)


# Causality.


@pytest.mark.parametrize("symbol", LONG_ENOUGH)
@pytest.mark.parametrize("factor", [0.5, 2.0, np.nan])
def test_changing_later_bars_changes_no_earlier_feature(bars: dict[str, Bars], symbol: str, factor: float) -> None:
    history = bars[symbol].tail(330)
    stacked, n = TECH23.stack(history, NEUTRAL), len(history)
    original = compute(history, n)
    for first in np.unique(np.linspace(1, n - 1, size("perturbed positions")).astype(int)):
        shaken, times = stacked.copy(), history.timestamp.copy()
        shaken[first:] *= factor
        times[first:] += np.timedelta64(3, "D")
        features = TECH23.compute(shaken[None], times[None], n)[0]
        np.testing.assert_array_equal(features[:first], original[:first])
        assert not np.array_equal(features[first:], original[first:], equal_nan=True), "nothing was changed at all"


# NaN until defined.


def test_a_feature_is_undefined_until_its_memory_is_full_and_defined_from_then_on(bars: dict[str, Bars]) -> None:
    features = compute(bars["GOOG"].tail(300), 300)
    first = np.argmax(np.isfinite(features), axis=0)
    assert dict(zip(NAMES, (first + 1).tolist(), strict=True)) == dict(zip(NAMES, MEMORY, strict=True))
    assert all(np.isfinite(features[start:, i]).all() for i, start in enumerate(first))


@pytest.mark.parametrize("n", [1, 2, 14, 100, 249])
def test_a_short_history_leaves_long_features_undefined_and_gives_no_error(bars: dict[str, Bars], n: int) -> None:
    features = compute(bars["GOOG"].tail(n), LOOKBACK)
    assert features.shape == (LOOKBACK, 23)
    finite = dict(zip(NAMES, np.isfinite(features[-1]).tolist(), strict=True))
    assert finite == {name: n >= memory for name, memory in zip(NAMES, MEMORY, strict=True)}


def test_a_missing_input_makes_what_reads_it_undefined_and_nothing_else(bars: dict[str, Bars]) -> None:
    sentiment = np.full(300, 0.7)
    sentiment[-2] = np.nan
    history = with_columns(bars["IBM"].tail(300), **{SENTIMENT: sentiment})
    features = compute(history, 3)
    assert [NAMES[i] for i in np.flatnonzero(np.isnan(features).any(axis=0))] == [SENTIMENT]
    np.testing.assert_array_equal(column(features, SENTIMENT), [0.7, np.nan, 0.7])


# What is put in where the client gave nothing.


def test_vwap_is_the_typical_price_when_it_is_not_given(bars: dict[str, Bars]) -> None:
    history = bars["MSFT"].tail(30)
    c = history.columns
    np.testing.assert_array_equal(column(compute(history, 30), VWAP), (c["high"] + c["low"] + c["close"]) / 3)


def test_vwap_and_sentiment_are_the_clients_when_they_are_given(bars: dict[str, Bars]) -> None:
    history = with_columns(bars["MSFT"].tail(30), **{VWAP: np.arange(30.0), SENTIMENT: np.linspace(0, 1, 30)})
    features = compute(history, 30)
    np.testing.assert_array_equal(column(features, VWAP), np.arange(30.0))
    np.testing.assert_array_equal(column(features, SENTIMENT), np.linspace(0, 1, 30))


def test_an_exogenous_column_is_its_default_when_it_is_not_given(bars: dict[str, Bars]) -> None:
    stacked = TECH23.stack(bars["MSFT"].tail(5), {SENTIMENT: 0.25})
    assert stacked[:, TECH23.columns.index(SENTIMENT)].tolist() == [0.25] * 5


def test_columns_may_come_in_any_order(bars: dict[str, Bars]) -> None:
    history = bars["MSFT"].tail(300)
    turned = Bars(history.timestamp, dict(reversed(list(history.columns.items()))))
    np.testing.assert_array_equal(compute(turned, LOOKBACK), compute(history, LOOKBACK))


def test_the_day_of_week_goes_round_a_circle_in_utc() -> None:
    history = flat_bars(8)
    times = np.datetime64("2013-03-04T23:59:59", "us") + np.arange(8) * np.timedelta64(1, "D")  # from a Monday
    features = compute(Bars(times, history.columns), 8)
    angle = 2 * np.pi * np.array([0, 1, 2, 3, 4, 5, 6, 0]) / 7
    np.testing.assert_allclose(column(features, "DayOfWeek_sin"), np.sin(angle), atol=1e-15)
    np.testing.assert_allclose(column(features, "DayOfWeek_cos"), np.cos(angle), atol=1e-15)


# Each feature is the indicator that its name says.


def test_features_are_the_indicators_they_are_named_after(bars: dict[str, Bars]) -> None:
    history = bars["AAPL"].tail(400)
    features, c = compute(history, 50), history.columns
    ema = {span: ta.ema_weights(span, 200) for span in (12, 26)}
    line = np.convolve(c[CLOSE], ema[12] - ema[26], mode="valid")
    signal = np.convolve(line, ta.ema_weights(9, 51), mode="valid")
    stochastic = ta.stochastic_k(c["high"], c["low"], c[CLOSE])
    expected = {
        "SMA_10": ta.sma(c[CLOSE], 10),
        "SMA_20": ta.sma(c[CLOSE], 20),
        "MACD_line": line,
        "MACD_signal": signal,
        "MACD_hist": line[-50:] - signal[-50:],
        "Stoch_D": np.convolve(stochastic, np.full(3, 1 / 3), mode="valid"),
        "Volume_SMA_20": ta.sma(c[VOLUME], 20),
        "OBV": ta.on_balance_volume(c[CLOSE], c[VOLUME], 100),
        "1h_return": np.diff(c[CLOSE]) / c[CLOSE][:-1],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(column(features, name), values[-50:], rtol=1e-9, atol=1e-10, err_msg=name)


def test_a_market_that_does_not_move_has_features_that_are_all_finite() -> None:
    features = compute(flat_bars(NEEDED), LOOKBACK)
    assert np.isfinite(features).all()
    assert set(column(features, "RSI_14").tolist()) == {50.0}
    assert set(column(features, "Stoch_D").tolist()) == {50.0}
    assert set(column(features, "ADX_14").tolist()) == {0.0}


def test_a_feature_set_with_fewer_features_computes_those_alone(bars: dict[str, Bars]) -> None:
    history = bars["AAPL"].tail(NEEDED)
    some = {name: TECH23.definitions[name] for name in ("RSI_14", "close")}
    two = replace(TECH23, definitions=some)
    assert two.bars_needed(10) == 24
    expected = compute(history, 10)[:, [NAMES.index("RSI_14"), NAMES.index("close")]]
    np.testing.assert_array_equal(compute(history.tail(24), 10, two), expected)


def test_a_feature_that_returns_too_many_values_is_an_error_and_not_a_shifted_column(bars: dict[str, Bars]) -> None:
    wrong = replace(TECH23, definitions={"RSI_14": Feature(40, lambda f: ta.rsi(f[CLOSE]))})
    with pytest.raises(ValueError, match="broadcast"):
        compute(bars["AAPL"].tail(100), 5, wrong)
