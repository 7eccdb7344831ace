from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from serve_app.errors import (
    DuplicateTimestamps,
    InvalidBar,
    MissingColumns,
    NonFinite,
    TooFewBars,
    TooManyMissing,
    UnknownColumns,
    UnsortedTimestamps,
    UnusableRequest,
)
from serve_app.preprocess import TECH23, HistoryRules, check_bars, check_history, recent_rows
from serve_app.preprocess.feature_sets import SENTIMENT, VWAP
from serve_app.types import Bars, FeatureRows, FloatArray
from tests.factories import LOOKBACK, NEEDED, NEUTRAL, features_of, flat_bars, with_columns, with_value

RULES = HistoryRules(TECH23, LOOKBACK, NEUTRAL)
NAN, INF = np.nan, np.inf
REQUIRED = ["open", "high", "low", "close", "volume"]


def bar(**changes: float) -> Bars:
    """Three bars, the middle one as told: open 50, high 52, low 48, close 51 unless changed."""
    usual = {"open": 50.0, "high": 52.0, "low": 48.0, "close": 51.0, "volume": 1000.0}
    bars = with_columns(flat_bars(3), **usual)
    for column, value in changes.items():
        bars = with_value(bars, column, 1, value)
    return bars


def at(*days: float) -> Bars:
    bars = flat_bars(len(days))
    seconds = (np.array(days) * 86_400).astype("timedelta64[s]")
    return Bars(np.datetime64("2013-01-01", "us") + seconds, bars.columns)


# One bar.


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"open": 52.0},
        {"open": 48.0},
        {"close": 52.0},
        {"close": 48.0},
        {"open": 50.0, "high": 50.0, "low": 50.0, "close": 50.0},
        {"volume": 0.0},
        {"volume": 1e15},
        {"open": 5e-324, "high": 5e-324, "low": 5e-324, "close": 5e-324},
    ],
    ids=lambda changes: " ".join(changes) or "as it is",
)
def test_a_bar_at_the_edge_of_sense_is_taken(changes: dict[str, float]) -> None:
    check_bars(bar(**changes), TECH23)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"low": 0.0}, "prices must be > 0"),
        ({"open": 0.0}, "prices must be > 0"),
        ({"high": -52.0}, "prices must be > 0"),
        ({"close": -0.0}, "prices must be > 0"),
        ({"volume": -1e-9}, "volume must be >= 0"),
        ({"high": 47.9}, "high must be >= low"),
        ({"open": 52.1}, r"open must lie within \[low, high\]"),
        ({"open": 47.9}, r"open must lie within \[low, high\]"),
        ({"close": np.nextafter(52.0, 53)}, r"close must lie within \[low, high\]"),
        ({"close": np.nextafter(48.0, 47)}, r"close must lie within \[low, high\]"),
    ],
)
def test_a_bar_that_makes_no_sense_is_refused_by_its_row(changes: dict[str, float], rule: str) -> None:
    with pytest.raises(InvalidBar, match=rf"bars\[1\] at 2013-01-02T00:00:00.000000Z: {rule}") as refusal:
        check_bars(bar(**changes), TECH23)
    assert refusal.value.detail["row"] == 1
    assert refusal.value.detail["values"].items() >= changes.items()


def test_the_first_of_several_bad_bars_is_named() -> None:
    bars = with_value(with_value(flat_bars(9), "low", 7, -1.0), "low", 4, -1.0)
    with pytest.raises(InvalidBar, match=r"bars\[4\]"):
        check_bars(bars, TECH23)


@pytest.mark.parametrize("column", [*REQUIRED, VWAP, SENTIMENT])
@pytest.mark.parametrize("value", [INF, -INF, 1.01e15, -1.01e15])
def test_nothing_may_be_infinite_or_nearly_so(column: str, value: float) -> None:
    bars = with_value(with_columns(bar(), **{VWAP: 50.0, SENTIMENT: 0.5}), column, 2, value)
    with pytest.raises(NonFinite, match=rf"bars\[2\]\.{column} is missing, NaN, infinite or beyond") as refusal:
        check_bars(bars, TECH23)
    assert refusal.value.detail == {"row": 2, "column": column}


@pytest.mark.parametrize("column", REQUIRED)
def test_a_required_column_may_have_no_gap(column: str) -> None:
    with pytest.raises(NonFinite, match=rf"bars\[0\]\.{column}"):
        check_bars(with_value(bar(), column, 0, NAN), TECH23)


def test_an_optional_column_may_have_gaps_anywhere() -> None:
    check_bars(with_columns(bar(), **{VWAP: NAN, SENTIMENT: NAN}), TECH23)


# Time.


def test_bars_may_be_as_close_as_a_microsecond_and_as_far_apart_as_years() -> None:
    bars = at(0, 1, 4000)
    bars.timestamp[1] = bars.timestamp[0] + np.timedelta64(1, "us")
    check_bars(bars, TECH23)


def test_two_bars_at_one_time_are_refused() -> None:
    with pytest.raises(DuplicateTimestamps, match=r"bars\[2\] repeats the timestamp 2013-01-03") as refusal:
        check_bars(at(0, 2, 2, 3), TECH23)
    assert refusal.value.detail == {"row": 2}


@pytest.mark.parametrize("days", [(0, 2, 1, 3), (0, 2, 2 - 1e-6, 3)])
def test_bars_that_go_back_in_time_are_refused(days: tuple[float, ...]) -> None:
    with pytest.raises(UnsortedTimestamps, match=r"bars\[2\] at .* earlier than the bar before it") as refusal:
        check_bars(at(*days), TECH23)
    assert refusal.value.detail == {"row": 2}


def test_bars_newest_first_are_told_to_be_sent_oldest_first() -> None:
    with pytest.raises(UnsortedTimestamps, match=r"bars\[1\].*send bars oldest first"):
        check_bars(at(3, 2, 1, 0), TECH23)


# Columns.


@pytest.mark.parametrize("column", REQUIRED)
def test_a_required_column_must_be_there(column: str) -> None:
    bars = bar()
    rest = {name: x for name, x in bars.columns.items() if name != column}
    with pytest.raises(MissingColumns, match=f"missing columns: {column}; required are open, high") as refusal:
        check_bars(Bars(bars.timestamp, rest), TECH23)
    assert refusal.value.detail == {"missing": [column]}


def test_all_missing_columns_are_named_at_once() -> None:
    with pytest.raises(MissingColumns) as refusal:
        check_bars(Bars(bar().timestamp, {"close": np.ones(3)}), TECH23)
    assert refusal.value.detail == {"missing": ["open", "high", "low", "volume"]}


@pytest.mark.parametrize("column", ["Close", "adj_close", "sentiment"])
def test_a_column_that_is_not_known_is_refused_with_those_that_are(column: str) -> None:
    with pytest.raises(UnknownColumns, match=f"unknown columns: {column}; known are .*{SENTIMENT}") as refusal:
        check_bars(with_columns(bar(), **{column: 1.0}), TECH23)
    assert refusal.value.detail == {"unknown": [column], "known": list(TECH23.columns)}


def test_the_columns_of_bars_may_come_in_any_order() -> None:
    bars = bar()
    check_bars(Bars(bars.timestamp, {name: bars.columns[name] for name in sorted(bars.columns)}), TECH23)


# A history for a bundle.


def test_exactly_the_bars_needed_are_enough(bars: dict[str, Bars]) -> None:
    history = bars["IBM"].tail(NEEDED)
    assert len(check_history(history, RULES)) == NEEDED


@pytest.mark.parametrize("n", [0, 1, NEEDED - 1])
def test_one_bar_too_few_is_refused_with_how_many_are_needed(n: int) -> None:
    with pytest.raises(TooFewBars, match=f"{n} bars given, 273 needed; send at least 273") as refusal:
        check_history(flat_bars(n), RULES)
    assert refusal.value.detail == {"given": n, "needed": 273}


def test_of_more_bars_the_last_are_returned(bars: dict[str, Bars]) -> None:
    checked = check_history(bars["IBM"], RULES)
    np.testing.assert_array_equal(checked.timestamp, bars["IBM"].timestamp[-NEEDED:])
    assert set(checked.columns) == set(REQUIRED)
    for name, values in checked.columns.items():
        np.testing.assert_array_equal(values, bars["IBM"].columns[name][-NEEDED:])


def test_every_bar_is_checked_and_not_only_those_that_are_used() -> None:
    with pytest.raises(InvalidBar, match=r"bars\[0\]"):
        check_history(with_value(flat_bars(NEEDED + 50), "low", 0, -1.0), RULES)


def gaps(n: int, column: str = SENTIMENT) -> Bars:
    """A window whose first row is there and whose next `n` sentiments are not."""
    values = np.full(NEEDED, 0.5)
    values[NEEDED - LOOKBACK + 1 :][:n] = NAN
    return with_columns(flat_bars(NEEDED), **{column: values})


def test_gaps_of_an_optional_column_count_against_all_features_of_the_window() -> None:
    check_history(gaps(23), RULES)  # 23 of 24 · 23
    both = with_columns(gaps(23), **{VWAP: gaps(23, VWAP).columns[VWAP]})  # 46 of 552, still below a tenth
    check_history(both, RULES)


def test_a_window_that_starts_with_a_gap_is_refused() -> None:
    history = with_value(gaps(0), SENTIMENT, NEEDED - LOOKBACK, NAN)
    with pytest.raises(TooManyMissing, match=f"first row has no {SENTIMENT}") as refusal:
        check_history(history, RULES)
    assert refusal.value.detail == {"column": SENTIMENT}


def test_gaps_before_the_window_do_not_matter() -> None:
    history = gaps(0)
    history.columns[SENTIMENT][: NEEDED - LOOKBACK] = NAN
    check_history(history, RULES)


def test_an_optional_column_that_is_half_of_all_features_may_not_have_many_gaps() -> None:
    few = {name: TECH23.definitions[name] for name in ("close", SENTIMENT)}
    rules = HistoryRules(type(TECH23)("two.v1", few, TECH23.optional_columns), 20, NEUTRAL)  # 40 values
    history = with_columns(flat_bars(20), **{SENTIMENT: [0.5] + [NAN] * 4 + [0.5] * 15})
    check_history(history, rules)
    with pytest.raises(TooManyMissing, match=r"12\.5% of the window is missing, at most 10%"):
        check_history(with_value(history, SENTIMENT, 10, NAN), rules)


# Features that the client computed.


def features(n: int = LOOKBACK, **changes: Any) -> FeatureRows:
    values = np.arange(n * 23.0).reshape(n, 23)
    return FeatureRows(changes.get("columns", TECH23.features), changes.get("values", values))


def missing(n: int, rows: int) -> FloatArray:
    """`rows` rows of features with `n` values missing, none in the first row."""
    values = np.ones((rows, 23))
    values[1:].reshape(-1)[:n] = NAN
    return values


def test_exactly_a_tenth_may_be_missing() -> None:
    rules = HistoryRules(TECH23, 20, NEUTRAL)  # 460 values
    window = recent_rows(features(values=missing(46, 20)), rules)
    assert np.isnan(window).sum() == 46


@pytest.mark.parametrize(("rows", "n"), [(20, 47), (24, 56)])
def test_more_than_a_tenth_may_not_be_missing(rows: int, n: int) -> None:
    with pytest.raises(TooManyMissing, match=r"10\.\d% of the window is missing, at most 10% is allowed") as refusal:
        recent_rows(features(values=missing(n, rows)), HistoryRules(TECH23, rows, NEUTRAL))
    assert refusal.value.detail["share"] == pytest.approx(n / (23 * rows))


def test_55_of_552_values_may_be_missing() -> None:
    assert np.isnan(recent_rows(features(values=missing(55, 24)), RULES)).sum() == 55


@pytest.mark.parametrize("name", ["open", "RSI_14", "DayOfWeek_cos"])
def test_features_that_start_with_a_gap_are_refused_by_name(name: str) -> None:
    values = np.ones((LOOKBACK, 23))
    values[0, TECH23.features.index(name)] = NAN
    with pytest.raises(TooManyMissing, match=f"first row has no {name}"):
        recent_rows(features(values=values), RULES)


@pytest.mark.parametrize("value", [INF, -INF, 1.01e15, -1.01e15])
def test_an_infinite_feature_is_refused_by_name_and_row(value: float) -> None:
    given = features(30)
    given.values[28, 13] = value
    with pytest.raises(NonFinite, match=r"Stoch_D is infinite or beyond .* in row -2 from the end") as refusal:
        recent_rows(given, RULES)
    assert refusal.value.detail == {"column": "Stoch_D"}


def test_the_order_of_feature_columns_does_not_matter(bars: dict[str, Bars]) -> None:
    given = features_of(bars["IBM"].tail(NEEDED))
    order = np.random.default_rng(0).permutation(23)
    shuffled = FeatureRows(tuple(given.columns[i] for i in order), given.values[:, order])
    np.testing.assert_array_equal(recent_rows(shuffled, RULES), given.values)


def test_only_the_last_rows_of_features_are_used() -> None:
    given = features(LOOKBACK + 5)
    given.values[:5] = NAN
    given.values[0] = INF
    np.testing.assert_array_equal(recent_rows(given, RULES), given.values[5:])


def test_one_row_of_features_too_few_is_refused() -> None:
    with pytest.raises(TooFewBars, match="23 rows of features given, 24 needed"):
        recent_rows(features(23), RULES)


def test_no_rows_of_features_are_too_few() -> None:
    with pytest.raises(TooFewBars, match="0 rows of features given"):
        recent_rows(features(0), RULES)


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        (TECH23.features[:-1], MissingColumns, "missing columns: DayOfWeek_cos"),
        ((*TECH23.features, "EMA_12"), UnknownColumns, "unknown columns: EMA_12"),
        ((*TECH23.features, "close"), UnknownColumns, "given twice"),
        (("Open", *TECH23.features[1:]), MissingColumns, "missing columns: open"),
    ],
)
def test_feature_columns_must_be_exactly_those_of_the_feature_set(
    columns: tuple[str, ...], error: type[UnusableRequest], message: str
) -> None:
    with pytest.raises(error, match=message):
        recent_rows(features(columns=columns, values=np.ones((LOOKBACK, len(columns)))), RULES)


@pytest.mark.parametrize("check", [check_bars, check_history])
def test_checking_changes_nothing(check: Callable[..., object]) -> None:
    bars = gaps(3)
    before = {name: values.copy() for name, values in bars.columns.items()}
    check(bars, TECH23 if check is check_bars else RULES)
    for name, values in before.items():
        np.testing.assert_array_equal(bars.columns[name], values)
