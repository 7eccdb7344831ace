"""Requests that the faulty model knows by their sentiment."""

from typing import Any

import numpy as np

from serve_app.documentation import bars_as_columns
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.types import Bars


def with_sentiment(symbol: str, bars: Bars, sentiment: float) -> dict[str, Any]:
    columns = {**bars.columns, SENTIMENT: np.full(len(bars), sentiment)}
    return {"symbol": symbol, "bars": bars_as_columns(Bars(bars.timestamp, columns))}
