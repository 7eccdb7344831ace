"""A history that grows by one bar at a time."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from serve_app.errors import DuplicateTimestamps, MissingColumns, UnsortedTimestamps
from serve_app.model.foreign.unsaid import USUAL_LOOKBACK
from serve_app.preprocess import TECH23, check_bars
from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS, SENTIMENT
from serve_app.supervised.frames import check_ascending, checked, numbers, times
from serve_app.training.data import TIMESTAMP
from serve_app.types import Bars


class FeatureCalculator(Protocol):
    """Whatever adds features to a frame of bars."""

    def calculate_all_indicators(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with its features as columns."""


class Tech23Calculator:
    """The features `tech23.v1` by the code that serves, for windows of `lookback_window` rows."""

    def __init__(self, lookback_window: int = USUAL_LOOKBACK, neutral_sentiment: float = 0.5) -> None:
        self.bars_needed = TECH23.bars_needed(lookback_window)
        """Bars that a window reads: what must be kept of a history."""
        self._neutral = {SENTIMENT: neutral_sentiment}

    def calculate_all_indicators(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with all features as columns, NaN where the history is too short.

        A bar without a vwap has its typical price; one without sentiment that of the bar before it, the first the
        neutral one. Raises a subclass of UnusableRequest for bars that are none.
        """
        names = [name for name in TECH23.columns if name in frame.columns]
        given = Bars(times(frame), dict(zip(names, numbers(frame, names).T, strict=True)))
        check_bars(given, TECH23)
        bars = self._without_gaps(given)
        features = TECH23.compute(TECH23.stack(bars, self._neutral)[None], bars.timestamp[None], len(bars))[0]
        return frame.assign(**dict(zip(TECH23.features, features.T, strict=True)))

    def _without_gaps(self, bars: Bars) -> Bars:
        required = Bars(bars.timestamp, {name: bars.columns[name] for name in REQUIRED_COLUMNS})
        implied = dict(zip(TECH23.columns, TECH23.stack(required, self._neutral).T, strict=True))
        columns = {**implied, **bars.columns}
        if SENTIMENT in bars.columns:
            columns[SENTIMENT] = pd.Series(columns[SENTIMENT]).ffill().to_numpy()
        filled = {name: np.where(np.isnan(x), implied[name], x) for name, x in columns.items()}
        return Bars(bars.timestamp, filled)


def align_realtime_data(
    historical_df: pd.DataFrame, realtime_bar: Mapping[Any, Any], feature_calculator: FeatureCalculator
) -> pd.DataFrame:
    """Append a bar to a history, by its time, and compute the features anew.

    Times are in the bar's `timestamp`, and in that column of the history or its index. What else the bar has and the
    history has not is left out. A bar that is there already, with the same values, changes nothing. As many rows come
    back as the calculator needs (`bars_needed`), else all: they can be the history of the next bar.

    Raises MissingColumns, UnsortedTimestamps for a bar older than the last one or a history that is not in order,
    DuplicateTimestamps for another bar at the last one's time, WrongType, and what the calculator raises.
    """
    prices = _price_columns(checked(historical_df))
    missing = [name for name in (TIMESTAMP, *prices) if name not in realtime_bar]
    if missing:
        raise MissingColumns(f"the bar lacks {', '.join(missing)}", missing=missing)
    computed = feature_calculator.calculate_all_indicators(_upserted(historical_df, realtime_bar, prices))
    return computed.tail(getattr(feature_calculator, "bars_needed", len(computed)))


def _price_columns(historical: pd.DataFrame) -> list[str]:
    """Return open, high, low, close and volume as this history spells them: calculators elsewhere want capitals."""
    spelt = {str(name).lower(): str(name) for name in historical.columns}
    missing = [name for name in REQUIRED_COLUMNS if name not in spelt]
    if missing:
        raise MissingColumns(f"the history lacks {', '.join(missing)}", missing=missing)
    return [spelt[name] for name in REQUIRED_COLUMNS]


def _upserted(historical: pd.DataFrame, bar: Mapping[Any, Any], prices: Sequence[str]) -> pd.DataFrame:
    row = pd.DataFrame([dict(bar)])
    given, at, before = numbers(row, prices)[0], times(row)[0], times(historical)
    check_ascending(before)
    if not len(before) or at > before[-1]:
        known = [name for name in row.columns if name in historical.columns]
        return _appended(historical, row[known], at)
    if at < before[-1]:
        raise UnsortedTimestamps(f"the bar at {at}Z is older than the last one, at {before[-1]}Z; bars come in order")
    there = numbers(historical.tail(1), prices)[0]
    other = [name for name, new, old in zip(prices, given, there, strict=True) if new != old]
    if other:
        raise DuplicateTimestamps(f"another bar is at {at}Z already; they differ in {', '.join(other)}")
    return historical


def _appended(historical: pd.DataFrame, row: pd.DataFrame, at: np.datetime64) -> pd.DataFrame:
    if TIMESTAMP in historical.columns:
        column = historical[TIMESTAMP]
        zone = column.dt.tz if pd.api.types.is_datetime64_any_dtype(column) else None
        if pd.api.types.is_datetime64_any_dtype(column):
            row = row.assign(**{TIMESTAMP: _like(pd.DatetimeIndex([at]), zone)})
        return pd.concat([historical, row], ignore_index=True)
    zone = historical.index.tz if isinstance(historical.index, pd.DatetimeIndex) else None
    return pd.concat([historical, row.set_axis(_like(pd.DatetimeIndex([at]), zone), axis=0)])


def _like(utc: pd.DatetimeIndex, zone: Any) -> pd.DatetimeIndex:
    """Give times the zone of those they are put to."""
    return utc if zone is None else utc.tz_localize("UTC").tz_convert(zone)
