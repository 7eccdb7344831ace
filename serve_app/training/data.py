"""Bars for training and backtests: the built-in daily bars, or a CSV or Parquet file of the user's."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from serve_app.errors import ConfigError, DuplicateTimestamps, MissingColumns, NotFound, UnsortedTimestamps, WrongType
from serve_app.preprocess.feature_sets import REQUIRED_COLUMNS
from serve_app.types import Bars, FloatArray, TimeArray

BUILT_IN = "bokeh"
TIMESTAMP, SYMBOL = "timestamp", "symbol"
READERS: Mapping[str, Callable[[Path], pd.DataFrame]] = {".csv": pd.read_csv, ".parquet": pd.read_parquet}


def load_bars(source: str | Path) -> dict[str, Bars]:
    """Load the bars of every symbol of `source`, keyed by symbol in alphabetical order.

    Args:
        source: `bokeh` for the built-in daily bars of bokeh_sampledata (AAPL, FB, GOOG, IBM, MSFT, 2000-2013,
            adjusted for splits and dividends), else the path of a .csv or .parquet file with columns timestamp,
            symbol, open, high, low, close, volume and any further numeric columns. Timestamps are ISO 8601; those
            with a time zone are converted to UTC, those without are taken as UTC.

    Raises:
        NotFound: there is no such file.
        ConfigError: the file is neither CSV nor Parquet.
        MissingColumns: a required column is absent.
        WrongType: a timestamp cannot be read, a symbol is empty, or another column is not numeric.
        UnsortedTimestamps: a symbol's rows are not in ascending order of time.
        DuplicateTimestamps: a symbol has two rows at one time.
    """
    frame = _built_in() if str(source) == BUILT_IN else _read(Path(source))
    missing = [name for name in (TIMESTAMP, SYMBOL, *REQUIRED_COLUMNS) if name not in frame.columns]
    if missing:
        raise MissingColumns(f"{source} lacks {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    if frame[SYMBOL].isna().any():
        raise WrongType(f"column {SYMBOL!r} of {source} is empty in row {int(frame[SYMBOL].isna().argmax())}")
    timestamps = utc_times(frame[TIMESTAMP])
    columns = {str(name): _numbers(frame[name]) for name in frame.columns if name not in {TIMESTAMP, SYMBOL}}
    symbols = frame[SYMBOL].astype(str).to_numpy()
    bars = {}
    for symbol in sorted(set(symbols)):
        rows = np.flatnonzero(symbols == symbol)
        _check_order(symbol, timestamps[rows], rows)
        bars[symbol] = Bars(timestamps[rows], {name: values[rows] for name, values in columns.items()})
    return bars


def _built_in() -> pd.DataFrame:
    from bokeh_sampledata.stocks import data  # noqa: PLC0415 reads its files when imported

    # One factor a row keeps open and close inside [low, high]: rounding is monotone. Volume keeps its traded value.
    factor = data["adj_close"] / data["close"]
    prices = {name: data[name] * factor for name in ("open", "high", "low", "close")}
    return pd.DataFrame({TIMESTAMP: data["date"], SYMBOL: data["ticker"], **prices, "volume": data["volume"] / factor})


def _read(path: Path) -> pd.DataFrame:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise ConfigError(f"cannot read bars from {path}: give {BUILT_IN!r} or a {' or '.join(READERS)} file")
    if not path.is_file():
        raise NotFound(f"no file of bars at {path}")
    return reader(path)


def utc_times(column: "pd.Series[Any]") -> TimeArray:
    """Return times (N,) in UTC; those without a zone are taken as UTC. Raises WrongType."""
    if pd.api.types.is_numeric_dtype(column):
        raise WrongType(f"column {TIMESTAMP!r} holds numbers of unknown unit; write ISO 8601, 2024-05-01T14:30:00Z")
    try:
        times = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise WrongType(f"column {TIMESTAMP!r} is not ISO 8601 throughout: {error}") from error
    if times.isna().any():
        raise WrongType(f"column {TIMESTAMP!r} is empty in row {int(times.isna().argmax())}")
    return times.dt.tz_localize(None).to_numpy().astype("datetime64[us]")


def _numbers(column: "pd.Series[float]") -> FloatArray:
    if not pd.api.types.is_numeric_dtype(column):
        sample = column.dropna().iloc[:1].to_list()
        raise WrongType(f"column {str(column.name)!r} is not numeric (it begins with {sample}); mend or remove it")
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan), dtype=np.float64)


def _check_order(symbol: str, timestamps: TimeArray, rows: NDArray[np.intp]) -> None:
    step = np.diff(timestamps).astype(np.int64)
    if (step < 0).any():
        row = rows[1:][step < 0][0]
        raise UnsortedTimestamps(f"{symbol} goes back in time in row {row}; sort each symbol's rows by {TIMESTAMP}")
    if (step == 0).any():
        row = rows[1:][step == 0][0]
        raise DuplicateTimestamps(f"{symbol} has a second bar at {timestamps[1:][step == 0][0]}Z in row {row}")


def known_biases(source: str | Path) -> tuple[str, ...]:
    """Return what is known to be wrong with the data of a source, for the metadata of models trained on it."""
    if str(source) != BUILT_IN:
        return ()
    return (
        "survivorship: these companies were chosen because they are well known today",
        "back-adjusted prices: later splits and dividends are in earlier prices, so nothing but offline use is meant",
        "validation chose the early stop, the threshold and the preset, so its metrics flatter the model",
        "labels of neighbouring windows overlap, so the test period holds far fewer independent outcomes than windows",
    )
