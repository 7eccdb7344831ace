"""Frames of older code → the histories that serving takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from serve_app.errors import MissingColumns, UnknownColumns, UnsortedTimestamps, WrongType
from serve_app.preprocess import FeatureSet, HistoryRules
from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS
from serve_app.training.data import TIMESTAMP, utc_times
from serve_app.types import Bars, FeatureRows, FloatArray, TimeArray


def history_of(frame: Any, rules: HistoryRules) -> FeatureRows | Bars:
    """Read a frame as features if it has any that is computed, else as bars. Other columns are not looked at.

    Raises MissingColumns, UnknownColumns for a column that is there twice, UnsortedTimestamps, or WrongType for what is
    no frame, no number or no time.
    """
    feature_set = rules.feature_set
    columns = checked(frame).columns
    if _is_bars(feature_set, columns):
        names = [name for name in feature_set.columns if name in columns]
        return Bars(times(frame), dict(zip(names, numbers(frame, names).T, strict=True)))
    return feature_rows(frame, feature_set, rules.lookback_window)


def _is_bars(feature_set: FeatureSet, columns: "pd.Index[Any]") -> bool:
    """Whether a frame is one of bars: a feature that was computed elsewhere must not be computed again, silently."""
    computed = [name for name in feature_set.features if name not in feature_set.columns]
    has_bars = all(name in columns for name in REQUIRED_COLUMNS)
    return feature_set.computed and has_bars and not any(name in columns for name in computed)


def feature_rows(frame: Any, feature_set: FeatureSet, lookback_window: int) -> FeatureRows:
    """Return the features of a frame's last rows, at most `lookback_window`. Raises as `history_of`."""
    missing = [name for name in feature_set.features if name not in checked(frame).columns]
    if missing:
        or_bars = f", or bars ({', '.join(REQUIRED_COLUMNS)}) alone" if feature_set.computed else ""
        raise MissingColumns(
            f"Missing features: {', '.join(missing)}; a frame must have every feature of the model{or_bars}",
            missing=missing,
        )
    last = frame.tail(lookback_window)
    _check_order(last)
    return FeatureRows(feature_set.features, numbers(last, feature_set.features))


def checked(value: Any) -> pd.DataFrame:
    """Return a frame as it is. Raises WrongType for anything else."""
    if not isinstance(value, pd.DataFrame):
        raise WrongType(f"a {type(value).__name__} was given; a pandas DataFrame is needed, oldest row first")
    return value


def numbers(frame: pd.DataFrame, names: Sequence[str]) -> FloatArray:
    """Return columns side by side (N, C). Raises UnknownColumns or WrongType."""
    _check_once(frame, names)
    try:
        return np.ascontiguousarray(frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        raise WrongType(f"the frame holds what is no number: {error}") from error


def times(frame: pd.DataFrame) -> TimeArray:
    """Return the times of a frame, from its column `timestamp` or its index; without a zone they are UTC.

    Raises MissingColumns, UnknownColumns or WrongType.
    """
    written = _written_times(frame)
    if written is None:
        raise MissingColumns(f"bars need their times: a column {TIMESTAMP!r}, or a DatetimeIndex", missing=[TIMESTAMP])
    return utc_times(written.reset_index(drop=True))


def check_ascending(at: TimeArray) -> None:
    """Raise UnsortedTimestamps unless every time is later than the one before it."""
    wrong = np.flatnonzero(np.diff(at).astype(np.int64) <= 0)
    if len(wrong):
        _refuse_order(f"{at[int(wrong[0]) + 1]}Z")


def _check_order(frame: pd.DataFrame) -> None:
    """Features need no times; those that are there must not say that the rows are in another order."""
    written = _written_times(frame)
    if written is None:
        return
    if not pd.api.types.is_numeric_dtype(written):
        try:
            written = pd.Series(times(frame))
        except WrongType:  # nothing needs them, so they may be of any kind
            return
    if not (written.is_monotonic_increasing and written.is_unique):
        _refuse_order("a row of the window")


def _refuse_order(where: str) -> None:
    raise UnsortedTimestamps(f"{where} is not later than the one before it; give rows oldest first, each once")


def _written_times(frame: pd.DataFrame) -> "pd.Series[Any] | None":
    if TIMESTAMP in frame.columns:
        _check_once(frame, [TIMESTAMP])
        return frame[TIMESTAMP]
    return frame.index.to_series() if isinstance(frame.index, pd.DatetimeIndex) else None


def _check_once(frame: pd.DataFrame, names: Sequence[str]) -> None:
    twice = [name for name in names if not isinstance(frame.columns.get_loc(name), int)]
    if twice:
        raise UnknownColumns(f"the frame has {', '.join(twice)} more than once; name each column once", columns=twice)
