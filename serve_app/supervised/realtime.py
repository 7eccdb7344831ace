"""A history that grows by one bar at a time."""

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import pandas as pd

from serve_app.errors import DuplicateTimestamps, MissingColumns, UnsortedTimestamps
from serve_app.model.foreign.unsaid import USUAL_LOOKBACK
from serve_app.preprocess import TECH23, check_bars
from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS, SENTIMENT
from serve_app.supervised.frames import numbers, times
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

        Raises a subclass of UnusableRequest for bars that are none.
        """
        names = [name for name in TECH23.columns if name in frame.columns]
        bars = Bars(times(frame), dict(zip(names, numbers(frame, names).T, strict=True)))
        check_bars(bars, TECH23)
        features = TECH23.compute(TECH23.stack(bars, self._neutral)[None], bars.timestamp[None], len(bars))[0]
        return frame.assign(**dict(zip(TECH23.features, features.T, strict=True)))


def align_realtime_data(
    historical_df: pd.DataFrame, realtime_bar: Mapping[Any, Any], feature_calculator: FeatureCalculator
) -> pd.DataFrame:
    """Append a bar to a history, by its time, and compute the features anew.

    Times are in the column `timestamp` or the index. A bar that is there already, with the same values, changes
    nothing. As many rows come back as the calculator needs (`bars_needed`), else all.

    Raises MissingColumns, UnsortedTimestamps for a bar older than the last one, DuplicateTimestamps for another bar at
    the last one's time, and what the calculator raises.
    """
    missing = [name for name in (TIMESTAMP, *REQUIRED_COLUMNS) if name not in realtime_bar]
    if missing:
        raise MissingColumns(f"the bar lacks {', '.join(missing)}", missing=missing)
    combined = _appended(historical_df, realtime_bar)
    computed = feature_calculator.calculate_all_indicators(combined)
    return computed.tail(getattr(feature_calculator, "bars_needed", len(computed)))


def _appended(historical: pd.DataFrame, bar: Mapping[Any, Any]) -> pd.DataFrame:
    row = pd.DataFrame([dict(bar)])
    at, before = times(row)[0], times(historical)
    if len(before) and at < before[-1]:
        raise UnsortedTimestamps(f"the bar at {at}Z is older than the last one, at {before[-1]}Z; bars come in order")
    if len(before) and at == before[-1]:
        last = historical.iloc[-1]
        other = [name for name in REQUIRED_COLUMNS if float(last[name]) != float(bar[name])]
        if other:
            raise DuplicateTimestamps(f"another bar is at {at}Z already; they differ in {', '.join(other)}")
        return historical
    if TIMESTAMP in historical.columns:
        column = historical[TIMESTAMP]
        if isinstance(column.dtype, pd.DatetimeTZDtype | np.dtype) and column.dtype.kind == "M":
            row[TIMESTAMP] = _like(pd.DatetimeIndex([at]), column.dt.tz)
        return pd.concat([historical, row], ignore_index=True)
    zone = historical.index.tz if isinstance(historical.index, pd.DatetimeIndex) else None
    return pd.concat([historical, row.drop(columns=TIMESTAMP).set_axis(_like(pd.DatetimeIndex([at]), zone), axis=0)])


def _like(utc: pd.DatetimeIndex, zone: Any) -> pd.DatetimeIndex:
    """Give times the zone of those they are put to."""
    return utc if zone is None else utc.tz_localize("UTC").tz_convert(zone)
