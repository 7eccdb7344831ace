"""Frames of older code → the histories that serving takes."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from serve_app.errors import MissingColumns, WrongType
from serve_app.preprocess import FeatureSet
from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS
from serve_app.training.data import TIMESTAMP, utc_times
from serve_app.types import Bars, FeatureRows, FloatArray, TimeArray


def history_of(frame: pd.DataFrame, feature_set: FeatureSet) -> FeatureRows | Bars:
    """Read a frame as features if it has every feature as a column, else as bars. Other columns are not looked at.

    Raises MissingColumns, or WrongType for what is no number or no time.
    """
    missing = [name for name in feature_set.features if name not in frame.columns]
    if not missing:
        return FeatureRows(feature_set.features, numbers(frame, feature_set.features))
    if not feature_set.computed or any(name not in frame.columns for name in REQUIRED_COLUMNS):
        raise MissingColumns(f"the frame lacks {', '.join(missing)}", missing=missing)
    names = [name for name in feature_set.columns if name in frame.columns]
    return Bars(times(frame), dict(zip(names, numbers(frame, names).T, strict=True)))


def numbers(frame: pd.DataFrame, names: Iterable[str]) -> FloatArray:
    """Return columns side by side (N, C). Raises WrongType."""
    try:
        return np.ascontiguousarray(frame[list(names)].to_numpy(dtype=np.float64, na_value=np.nan))
    except (ValueError, TypeError) as error:
        raise WrongType(f"the frame holds what is no number: {error}") from error


def times(frame: pd.DataFrame) -> TimeArray:
    """Return the times of a frame, from its column `timestamp` or its index; without a zone they are UTC.

    Raises MissingColumns or WrongType.
    """
    if TIMESTAMP in frame.columns:
        return utc_times(frame[TIMESTAMP].reset_index(drop=True))
    if isinstance(frame.index, pd.DatetimeIndex):
        return utc_times(frame.index.to_series().reset_index(drop=True))
    raise MissingColumns(f"bars need their times: a column {TIMESTAMP!r}, or a DatetimeIndex", missing=[TIMESTAMP])
