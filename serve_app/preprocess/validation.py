"""What a history must be before a row may join a batch; every refusal says where it is wrong and how to mend it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import (
    DuplicateTimestamps,
    InvalidBar,
    MissingColumns,
    NonFinite,
    TooFewBars,
    TooManyMissing,
    UnknownColumns,
    UnsortedTimestamps,
)
from serve_app.preprocess.feature_sets import CLOSE, HIGH, LOW, OPEN, REQUIRED_COLUMNS, VOLUME, FeatureSet
from serve_app.types import Bars, FeatureRows, FloatArray

LARGEST = 1e15
"""No price, volume or feature is beyond this; what is would overflow on its way through a network in float32."""
MAX_MISSING_SHARE = 0.1
"""More NaN than this in a window and the window is refused."""


@dataclass(frozen=True, slots=True)
class HistoryRules:
    """What one bundle asks of a history."""

    feature_set: FeatureSet
    lookback_window: int
    exogenous: Mapping[str, float]

    @property
    def bars_needed(self) -> int:
        """Bars that one window reads."""
        return self.feature_set.bars_needed(self.lookback_window)


def _refuse_columns(given: Iterable[str], required: Sequence[str], known: Sequence[str]) -> None:
    given = list(given)
    if set(required) <= set(given) <= set(known) and len(set(given)) == len(given):
        return
    missing = [name for name in required if name not in given]
    if missing:
        raise MissingColumns(
            f"missing columns: {', '.join(missing)}; required are {', '.join(required)}", missing=missing
        )
    unknown = [name for name in given if name not in known]
    if unknown:
        raise UnknownColumns(
            f"unknown columns: {', '.join(unknown[:5])}; known are {', '.join(known)}",
            unknown=unknown,
            known=list(known),
        )
    raise UnknownColumns("a column is given twice; name each column once", columns=given)


def _check_timestamps(bars: Bars) -> None:
    steps = np.diff(bars.timestamp).astype(np.int64)
    back = np.flatnonzero(steps < 0)
    if len(back):
        row = int(back[0]) + 1
        raise UnsortedTimestamps(
            f"bars[{row}] at {bars.timestamp[row]}Z is earlier than the bar before it; send bars oldest first",
            row=row,
        )
    same = np.flatnonzero(steps == 0)
    if len(same):
        row = int(same[0]) + 1
        raise DuplicateTimestamps(
            f"bars[{row}] repeats the timestamp {bars.timestamp[row]}Z; send each bar once", row=row
        )


def _refuse_bar(bars: Bars, bad: NDArray[np.bool_], rule: str) -> None:
    rows = np.flatnonzero(bad)
    if not len(rows):
        return
    row = int(rows[0])
    values = {name: float(bars.columns[name][row]) for name in REQUIRED_COLUMNS}
    raise InvalidBar(f"bars[{row}] at {bars.timestamp[row]}Z: {rule}; got {values}", row=row, values=values)


def _check_finite(bars: Bars, optional: Iterable[str]) -> None:
    for name, values in bars.columns.items():
        # An optional column may have gaps, which the NaN policy fills; nothing may be infinite.
        bad = np.abs(values) > LARGEST if name in optional else ~(np.abs(values) <= LARGEST)
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise NonFinite(
                f"bars[{row}].{name} is missing, NaN, infinite or beyond ±{LARGEST:g}; every bar needs a finite {name}",
                row=row,
                column=name,
            )


def _nothing_wrong(bars: Bars) -> bool:
    """Whether none of the checks below would find anything: a fifth of their time. A comparison with NaN is false."""
    o, h, l, c, v = (bars.columns[name] for name in REQUIRED_COLUMNS)  # noqa: E741
    good = (l > 0) & (l <= o) & (o <= h) & (l <= c) & (c <= h) & (h <= LARGEST) & (v >= 0) & (v <= LARGEST)
    optional = [x for name, x in bars.columns.items() if name not in REQUIRED_COLUMNS]
    later = bars.timestamp[1:] > bars.timestamp[:-1]
    return bool(good.all() and later.all() and not any((np.abs(x) > LARGEST).any() for x in optional))


def check_bars(bars: Bars, feature_set: FeatureSet) -> None:
    """Check columns, time order, finiteness and the sense of prices, over every bar given.

    Raises a subclass of UnusableRequest that names the first offending bar.
    """
    _refuse_columns(bars.columns, REQUIRED_COLUMNS, feature_set.columns)
    if _nothing_wrong(bars):
        return
    _check_timestamps(bars)
    _check_finite(bars, feature_set.optional_columns)
    o, h, l, c, v = (bars.columns[name] for name in (OPEN, HIGH, LOW, CLOSE, VOLUME))  # noqa: E741
    _refuse_bar(bars, np.minimum.reduce([o, h, l, c]) <= 0, "prices must be > 0")
    _refuse_bar(bars, v < 0, "volume must be >= 0")
    _refuse_bar(bars, h < l, "high must be >= low")
    _refuse_bar(bars, (o < l) | (o > h), "open must lie within [low, high]")
    _refuse_bar(bars, (c < l) | (c > h), "close must lie within [low, high]")


def _check_missing(window: FloatArray, n_values: int, names: tuple[str, ...]) -> None:
    """Apply the NaN policy to the columns (L, C) of a window that holds `n_values` values in all."""
    missing = np.isnan(window)
    share = float(missing.sum()) / n_values
    if share > MAX_MISSING_SHARE:
        raise TooManyMissing(
            f"{share:.1%} of the window is missing, at most {MAX_MISSING_SHARE:.0%} is allowed", share=share
        )
    if missing[0].any():
        column = names[int(np.flatnonzero(missing[0])[0])]
        raise TooManyMissing(
            f"the window's first row has no {column}, and gaps are only filled from earlier rows; send a value there",
            column=column,
        )


def _too_few(given: int, needed: int, noun: str) -> None:
    if given < needed:
        raise TooFewBars(
            f"{given} {noun} given, {needed} needed; send at least {needed}, oldest first",
            given=given,
            needed=needed,
        )


def recent_rows(features: FeatureRows, rules: HistoryRules) -> FloatArray:
    """Check features and return the last L rows (L, F) in the order of the feature set.

    Raises MissingColumns, UnknownColumns, TooFewBars, NonFinite or TooManyMissing.
    """
    names = rules.feature_set.features
    window: FloatArray = features.values[-rules.lookback_window :]
    if features.columns != names:
        _refuse_columns(features.columns, names, names)
        window = window[:, [features.columns.index(name) for name in names]]
    _too_few(len(features), rules.lookback_window, "rows of features")
    if (np.abs(window) <= LARGEST).all():  # nothing missing, nothing beyond
        return window
    _refuse_beyond(window, names)
    _check_missing(window, window.size, names)
    return window


def _refuse_beyond(window: FloatArray, names: tuple[str, ...]) -> None:
    beyond = np.abs(window) > LARGEST
    if beyond.any():
        row, column = np.argwhere(beyond)[0]
        raise NonFinite(
            f"features: {names[column]} is infinite or beyond ±{LARGEST:g} in row {row - len(window)} from the end",
            column=names[column],
        )


def check_history(bars: Bars, rules: HistoryRules) -> Bars:
    """Check bars against everything one bundle asks, and return the last `bars_needed` of them."""
    check_bars(bars, rules.feature_set)
    _too_few(len(bars), rules.bars_needed, "bars")
    given = tuple(name for name in rules.feature_set.optional_columns if name in bars.columns)
    if given:
        window = np.stack([bars.columns[name][-rules.lookback_window :] for name in given], axis=-1)
        _check_missing(window, rules.lookback_window * len(rules.feature_set.features), given)
    return bars.tail(rules.bars_needed)
