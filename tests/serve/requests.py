"""Requests about real bars, in every form that the API takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from serve_app.documentation import bars_as_columns, bars_as_rows
from serve_app.preprocess import TECH23
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.types import Bars

NEEDED, LOOKBACK = 273, 24


def window(bars: Bars, ago: int = 0) -> Bars:
    """The bars that a decision `ago` bars before the latest one reads."""
    return bars.until(len(bars) - ago).tail(NEEDED)


def features_body(bars: Bars) -> dict[str, Any]:
    stacked = TECH23.stack(bars, {SENTIMENT: 0.5})[None]
    rows = TECH23.compute(stacked, bars.timestamp[None], LOOKBACK)[0]
    return {"columns": list(TECH23.features), "rows": rows.tolist()}


def with_sentiment(symbol: str, bars: Bars, sentiment: float) -> dict[str, Any]:
    columns = {**bars.columns, SENTIMENT: np.full(len(bars), sentiment)}
    return {"symbol": symbol, "bars": bars_as_columns(Bars(bars.timestamp, columns))}


def every_form(symbol: str, bars: Bars) -> Mapping[str, tuple[str, dict[str, Any]]]:
    """Name of the form → path and body; all of them ask about the same bar."""
    features = features_body(bars)
    feature_rows = [dict(zip(features["columns"], row, strict=True)) for row in features["rows"]]
    return {
        "rows": ("/v1/signals", {"symbol": symbol, "bars": bars_as_rows(bars)}),
        "columns": ("/v1/signals", {"symbol": symbol, "bars": bars_as_columns(bars)}),
        "features": ("/v1/signals", {"symbol": symbol, "features": features}),
        "batch": ("/v1/signals:batch", {"requests": [{"symbol": symbol, "bars": bars_as_rows(bars)}]}),
        "predict with bars": ("/predict", {"symbol": symbol, "historical_data": bars_as_rows(bars)}),
        "predict with features": ("/predict", {"symbol": symbol, "historical_data": feature_rows}),
    }


def probability_of(document: dict[str, Any]) -> float:
    answer = document["results"][0] if "results" in document else document
    value: float = answer["prediction_probability"]
    return value
