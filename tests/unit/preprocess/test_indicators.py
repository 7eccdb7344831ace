from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import talib
from hypothesis import given
from hypothesis import strategies as st

from serve_app.preprocess import indicators as ta
from serve_app.types import Bars, FloatArray

SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")


@pytest.fixture(params=SYMBOLS)
def columns(request: pytest.FixtureRequest, bars: dict[str, Bars]) -> dict[str, FloatArray]:
    return {name: np.ascontiguousarray(x) for name, x in bars[request.param].columns.items()}


def defined(theirs: FloatArray, memory: int) -> FloatArray:
    """What an oracle says from the first bar with a full memory on."""
    return theirs[memory - 1 :]


def loop(n_values: int, value: Callable[[int], float]) -> FloatArray:
    return np.array([value(t) for t in range(n_values)])


# Where TA-Lib means the same.


@pytest.mark.parametrize("n", [1, 2, 10, 20])
def test_sma_is_that_of_ta_lib(columns: dict[str, FloatArray], n: int) -> None:
    expected = talib.MA(columns["close"], n) if n == 1 else talib.SMA(columns["close"], n)
    np.testing.assert_allclose(ta.sma(columns["close"], n), defined(expected, n), rtol=1e-11)


def test_true_range_is_that_of_ta_lib(columns: dict[str, FloatArray]) -> None:
    h, l, c = columns["high"], columns["low"], columns["close"]  # noqa: E741
    np.testing.assert_allclose(ta.true_range(h, l, c), defined(talib.TRANGE(h, l, c), 2), rtol=1e-12, atol=1e-12)


def test_atr_is_the_simple_mean_of_ta_libs_true_range(columns: dict[str, FloatArray]) -> None:
    h, l, c = columns["high"], columns["low"], columns["close"]  # noqa: E741
    expected = talib.SMA(talib.TRANGE(h, l, c)[1:], 14)[13:]
    np.testing.assert_allclose(ta.atr(h, l, c), expected, rtol=1e-9)


def test_stochastic_k_is_that_of_ta_lib(columns: dict[str, FloatArray]) -> None:
    h, l, c = columns["high"], columns["low"], columns["close"]  # noqa: E741
    fast_k, _ = talib.STOCHF(h, l, c, fastk_period=14, fastd_period=1)
    np.testing.assert_allclose(ta.stochastic_k(h, l, c), defined(fast_k, 14), rtol=0, atol=1e-9)


def test_stochastic_k_is_the_place_of_the_close_between_ta_libs_min_and_max(columns: dict[str, FloatArray]) -> None:
    h, l, c = columns["high"], columns["low"], columns["close"]  # noqa: E741
    lowest, highest = talib.MIN(l, 14)[13:], talib.MAX(h, 14)[13:]
    expected = 100 * (c[13:] - lowest) / (highest - lowest)
    np.testing.assert_allclose(ta.stochastic_k(h, l, c), expected, rtol=0, atol=1e-9)


def test_bollinger_bandwidth_is_that_of_ta_lib_with_the_sample_deviation(columns: dict[str, FloatArray]) -> None:
    upper, middle, lower = talib.BBANDS(columns["close"], 20, 2.0, 2.0)
    expected = (upper - lower) / middle * np.sqrt(20 / 19)  # TA-Lib divides by n, we by n - 1
    np.testing.assert_allclose(ta.bollinger_bandwidth(columns["close"]), defined(expected, 20), rtol=1e-5)


def test_simple_return_is_ta_libs_rate_of_change(columns: dict[str, FloatArray]) -> None:
    expected = defined(talib.ROCP(columns["close"], 1), 2)
    np.testing.assert_allclose(ta.simple_return(columns["close"]), expected, rtol=0, atol=1e-14)


def test_on_balance_volume_is_what_ta_libs_grew_by_in_the_window(columns: dict[str, FloatArray]) -> None:
    total = talib.OBV(columns["close"], columns["volume"])
    expected = total[100:] - total[:-100]
    np.testing.assert_allclose(ta.on_balance_volume(columns["close"], columns["volume"], 100), expected, rtol=1e-9)


def test_adx_smooths_ta_libs_directional_movement_by_simple_means(columns: dict[str, FloatArray]) -> None:
    plus, minus = (
        pd.Series(movement(columns["high"], columns["low"], 1)[1:]).rolling(14).mean()
        for movement in (talib.PLUS_DM, talib.MINUS_DM)
    )
    expected = (100 * (plus - minus).abs() / (plus + minus)).rolling(14).mean().to_numpy()[26:]
    np.testing.assert_allclose(ta.adx(columns["high"], columns["low"]), expected, rtol=0, atol=1e-8)


# Where nobody defines it as we do: the definition, written out slowly.


def test_rsi_is_cutlers(columns: dict[str, FloatArray]) -> None:
    close = columns["close"][:300]

    def value(t: int) -> float:
        changes = [close[i] - close[i - 1] for i in range(t + 1, t + 15)]
        gain = sum(c for c in changes if c > 0) / 14
        loss = sum(-c for c in changes if c < 0) / 14
        return float(100 - 100 / (1 + gain / loss))

    np.testing.assert_allclose(ta.rsi(close), loop(len(close) - 14, value), rtol=1e-10)


def test_adx_is_the_mean_of_directional_indices(columns: dict[str, FloatArray]) -> None:
    high, low = columns["high"][:200], columns["low"][:200]

    def directional_index(end: int) -> float:
        plus = minus = 0.0
        for i in range(end - 13, end + 1):
            up, down = high[i] - high[i - 1], low[i - 1] - low[i]
            plus += up if up > down and up > 0 else 0
            minus += down if down > up and down > 0 else 0
        return 100 * abs(plus - minus) / (plus + minus)

    expected = loop(len(high) - 27, lambda t: sum(directional_index(i) for i in range(t + 14, t + 28)) / 14)
    np.testing.assert_allclose(ta.adx(high, low), expected, rtol=1e-10)


def test_on_balance_volume_adds_volume_by_the_sign_of_the_change(columns: dict[str, FloatArray]) -> None:
    close, volume = columns["close"][:180], columns["volume"][:180]

    def value(t: int) -> float:
        return float(sum(np.sign(close[i] - close[i - 1]) * volume[i] for i in range(t + 1, t + 101)))

    np.testing.assert_allclose(ta.on_balance_volume(close, volume, 100), loop(len(close) - 100, value), rtol=1e-12)


@pytest.mark.parametrize(("span", "taps"), [(12, ta.EMA_TAPS), (26, ta.EMA_TAPS), (9, ta.SIGNAL_TAPS)])
def test_ema_weights_fall_by_one_ratio_and_sum_to_one(span: int, taps: int) -> None:
    weights = ta.ema_weights(span, taps)
    assert len(weights) == taps
    assert weights.sum() == pytest.approx(1, abs=1e-15)
    np.testing.assert_allclose(weights[1:] / weights[:-1], 1 - 2 / (span + 1), rtol=1e-12)


@pytest.mark.parametrize("symbol", ["AAPL", "GOOG", "IBM", "MSFT"])  # FB is too young to forget its first bar
def test_the_macd_line_converges_to_that_of_endless_emas(bars: dict[str, Bars], symbol: str) -> None:
    close = bars[symbol].columns["close"]
    fast, slow = (pd.Series(close).ewm(span=span, adjust=False).mean() for span in (12, 26))
    ours, theirs = ta.macd_line(close), (fast - slow).to_numpy()[ta.EMA_TAPS - 1 :]
    # What is cut off weighs 2e-7; no price is further from another than the highest from the lowest.
    tolerance = float(3 * (25 / 27) ** 200 * np.ptp(close))
    np.testing.assert_allclose(ours[200:], theirs[200:], rtol=0, atol=tolerance)


def test_the_macd_signal_converges_to_an_endless_ema(columns: dict[str, FloatArray]) -> None:
    line = columns["close"] - columns["open"]
    endless = pd.Series(line).ewm(span=9, adjust=False).mean().to_numpy()
    ours = ta.macd_signal(line)
    tolerance = float(2 * 0.8**51 * np.ptp(line))
    np.testing.assert_allclose(ours[50:], endless[100:], rtol=0, atol=tolerance)


# Markets that do not move, or move one way only.


def flat(n: int = 60, price: float = 50.0) -> FloatArray:
    return np.full(n, price)


@pytest.mark.parametrize("price", [1e-4, 0.1, 50.0, 1e6 / 3])
@pytest.mark.parametrize(
    ("indicator", "expected"),
    [
        (ta.rsi, 50.0),
        (lambda x: ta.stochastic_k(x, x, x), 50.0),
        (lambda x: ta.adx(x, x), 0.0),
        (lambda x: ta.atr(x, x, x), 0.0),
        (ta.simple_return, 0.0),
        (lambda x: ta.on_balance_volume(x, x, 20), 0.0),
    ],
    ids=["rsi", "stochastic", "adx", "atr", "return", "obv"],
)
def test_a_market_that_does_not_move_has_defined_values(
    indicator: Callable[[FloatArray], FloatArray], expected: float, price: float
) -> None:
    assert set(indicator(flat(price=price)).tolist()) == {expected}


@pytest.mark.parametrize("price", [0.1, 50.0, 1e6 / 3])
def test_bands_and_macd_of_a_market_that_does_not_move_are_nothing_but_rounding(price: float) -> None:
    assert ta.bollinger_bandwidth(flat(price=price)).max() < 1e-14
    assert np.abs(ta.macd_line(flat(300, price))).max() < 1e-14 * price


def test_rsi_of_a_market_that_only_rises_is_100_and_that_only_falls_0() -> None:
    rising = np.arange(1.0, 40)
    assert set(ta.rsi(rising).tolist()) == {100.0}
    assert set(ta.rsi(rising[::-1].copy()).tolist()) == {0.0}


def test_adx_of_a_market_that_only_rises_is_100() -> None:
    rising = np.arange(1.0, 60)
    assert set(ta.adx(rising + 1, rising).tolist()) == {100.0}


def test_movement_both_ways_counts_for_the_larger_only_and_a_tie_for_neither() -> None:
    high, low = np.array([10.0, 12.0, 12.0]), np.array([9.0, 8.0, 8.0])  # up 2, down 1
    assert ta.adx(high, low, n=1).tolist() == [100.0, 0.0]
    high[1:] = 11.0  # up 1, down 1
    assert ta.adx(high, low, n=1).tolist() == [0.0, 0.0]


# Shapes and bounds, whatever comes.

ONE_INPUT: list[tuple[Callable[[FloatArray], FloatArray], int]] = [
    (lambda x: ta.sma(x, 10), 10),
    (ta.macd_line, ta.EMA_TAPS),
    (ta.macd_signal, ta.SIGNAL_TAPS),
    (ta.simple_return, 2),
    (ta.rsi, 15),
    (lambda x: ta.stochastic_k(x * 1.1, x * 0.9, x), 14),
    (lambda x: ta.true_range(x * 1.1, x * 0.9, x), 2),
    (lambda x: ta.atr(x * 1.1, x * 0.9, x), 15),
    (lambda x: ta.adx(x * 1.1, x * 0.9), 28),
    (ta.bollinger_bandwidth, 20),
    (lambda x: ta.on_balance_volume(x, x, 100), 101),
]
NAMES = ["sma", "macd", "signal", "return", "rsi", "stoch", "tr", "atr", "adx", "bb", "obv"]


@pytest.mark.parametrize(("indicator", "memory"), ONE_INPUT, ids=NAMES)
@given(lead=st.lists(st.integers(1, 3), max_size=2), more=st.integers(0, 30), seed=st.integers(0, 2**32 - 1))
def test_an_indicator_returns_one_value_for_every_full_memory(
    indicator: Callable[[FloatArray], FloatArray], memory: int, lead: list[int], more: int, seed: int
) -> None:
    prices = np.exp(np.random.default_rng(seed).normal(3, 1, (*lead, memory + more)))
    result = indicator(prices)
    assert result.shape == (*lead, more + 1)
    assert np.isfinite(result).all()


@given(seed=st.integers(0, 2**32 - 1), spread=st.sampled_from([0.0, 1e-6, 0.02, 3.0]))
def test_oscillators_stay_within_their_bounds(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    close = np.exp(rng.normal(3, spread, (4, 60)))
    high, low = close * (1 + rng.uniform(0, spread, close.shape)), close * (1 - rng.uniform(0, spread / 4, close.shape))
    for oscillator in (ta.rsi(close), ta.stochastic_k(high, low, close), ta.adx(high, low)):
        assert oscillator.min() >= -1e-9
        assert oscillator.max() <= 100 + 1e-9


def test_weekdays_are_counted_from_monday_in_utc() -> None:
    times = ["1969-12-29T00:00", "2013-03-03T23:59:59.999999", "2013-03-04", "2024-02-29T12:00", "2000-01-01"]
    assert ta.day_of_week(np.array(times, dtype="datetime64[us]")).tolist() == [0, 6, 0, 3, 5]
