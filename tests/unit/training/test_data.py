from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from serve_app.errors import (
    ConfigError,
    DuplicateTimestamps,
    MissingColumns,
    NotFound,
    ServeAppError,
    UnsortedTimestamps,
    WrongType,
)
from serve_app.training.data import load_bars

HEADER = "timestamp,symbol,open,high,low,close,volume"


def csv(folder: Path, *rows: str, header: str = HEADER) -> Path:
    path = folder / "bars.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def test_the_built_in_bars_are_adjusted_and_consistent() -> None:
    bars = load_bars("bokeh")
    assert {symbol: len(b) for symbol, b in bars.items()} == {
        "AAPL": 3270,
        "FB": 196,
        "GOOG": 2148,
        "IBM": 3270,
        "MSFT": 3270,
    }
    for b in bars.values():
        c = b.columns
        assert (np.maximum(c["open"], c["close"]) <= c["high"]).all()
        assert (np.minimum(c["open"], c["close"]) >= c["low"]).all()
        assert (np.abs(np.diff(np.log(c["close"]))) < 0.8).all(), "a split was not taken out"
        assert b.timestamp.dtype == "datetime64[us]"


def test_a_file_is_grouped_by_symbol_with_all_its_columns(tmp_path: Path) -> None:
    path = csv(
        tmp_path,
        "2024-05-01T14:30:00Z,B,1,2,0.5,1.5,100,0.3",
        "2024-05-01T10:30:00-04:00,A,3,4,2,3,7,",
        "2024-05-01 15:30:00,B,1,2,0.5,1.5,100,0.4",
        header=HEADER + ",sentiment",
    )
    bars = load_bars(path)
    assert list(bars) == ["A", "B"]
    times = np.array(["2024-05-01T14:30", "2024-05-01T15:30"], dtype="datetime64[us]")
    np.testing.assert_array_equal(bars["B"].timestamp, times)  # without a zone it is UTC
    np.testing.assert_array_equal(bars["A"].timestamp, times[:1])  # with one it is converted
    np.testing.assert_array_equal(bars["B"].columns["sentiment"], [0.3, 0.4])
    np.testing.assert_array_equal(bars["A"].columns["sentiment"], [np.nan])


def test_parquet_is_read_like_csv(tmp_path: Path) -> None:
    path = csv(tmp_path, "2024-05-01,A,1,2,0.5,1.5,100", "2024-05-02,A,1,2,0.5,1.5,100")
    pd.read_csv(path, parse_dates=["timestamp"]).to_parquet(tmp_path / "bars.parquet")
    ours, theirs = load_bars(path)["A"], load_bars(tmp_path / "bars.parquet")["A"]
    np.testing.assert_array_equal(ours.timestamp, theirs.timestamp)
    np.testing.assert_array_equal(ours.columns["close"], theirs.columns["close"])


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (["2024-05-02,A,1,2,1,1,9", "2024-05-01,A,1,2,1,1,9"], UnsortedTimestamps, r"A goes back in time in row 1"),
        (["2024-05-02,B,1,2,1,1,9", "2024-05-02,B,1,2,1,1,9"], DuplicateTimestamps, r"B has a second bar .* row 1"),
        (["yesterday,A,1,2,1,1,9"], WrongType, "not ISO 8601"),
        (["1714573800,A,1,2,1,1,9"], WrongType, "unknown unit"),
        (["2024-05-02,A,1,2,1,1,9", ",A,1,2,1,1,9"], WrongType, "'timestamp' is empty in row 1"),
        (["2024-05-02,,1,2,1,1,9"], WrongType, "'symbol' of .* empty in row 0"),
        (["2024-05-02,A,1,2,1,n.a.?,9"], WrongType, r"'close' is not numeric"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, rows: list[str], error: type[ServeAppError], message: str) -> None:
    with pytest.raises(error, match=message):
        load_bars(csv(tmp_path, *rows))


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"nowhere\.csv"):
        load_bars(tmp_path / "nowhere.csv")
    with pytest.raises(ConfigError, match=r"give 'bokeh' or a \.csv or \.parquet"):
        load_bars("bars.xlsx")
    with pytest.raises(MissingColumns, match="lacks close, volume"):
        load_bars(csv(tmp_path, "2024-05-02,A,1,2,1", header="timestamp,symbol,open,high,low"))
