"""What many tests ask about: real bars as requests in every form, and stages that fail on chosen rows."""

import asyncio
import dataclasses
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.documentation import bars_as_columns, bars_as_rows
from serve_app.model import Bundle, write_bundle
from serve_app.model.bundle import MANIFEST
from serve_app.pipeline import Batch, Pipeline, Stages
from serve_app.preprocess import TECH23
from serve_app.preprocess.feature_sets import CLOSE, SENTIMENT
from serve_app.training.golden import drawn_windows, record_golden
from serve_app.types import FLAT, Bars, FeatureRows, Position, Runtime, SignalRequest

ROOT = Path(__file__).parents[1]
PRODUCTION = ROOT / "models/v1.0"
CANDIDATE = ROOT / "models/v1.1"
NEEDED, LOOKBACK = 273, 24
FILES = sorted(path.name for path in PRODUCTION.iterdir() if path.name != MANIFEST)
"""Of a shipped bundle, as its manifest lists them."""
NEUTRAL = {SENTIMENT: 0.5}
"""The exogenous default of the shipped bundles."""


def window(bars: Bars, ago: int = 0) -> Bars:
    """Return the bars that a decision `ago` bars before the latest one reads."""
    return bars.until(len(bars) - ago).tail(NEEDED)


def with_columns(bars: Bars, **columns: Any) -> Bars:
    """Return the bars with columns added or replaced; a number fills its column."""
    filled = {name: np.broadcast_to(np.asarray(x, dtype=float), len(bars)).copy() for name, x in columns.items()}
    return Bars(bars.timestamp, {**bars.columns, **filled})


def with_value(bars: Bars, column: str, row: int, value: float) -> Bars:
    """Return the bars with one value changed."""
    values = bars.columns[column].copy()
    values[row] = value
    return Bars(bars.timestamp, {**bars.columns, column: values})


def flat_bars(n: int, price: float = 50.0, volume: float = 1000.0) -> Bars:
    """Return daily bars of a market that does not move."""
    timestamp = np.datetime64("2013-01-01", "us") + np.arange(n) * np.timedelta64(1, "D")
    prices = dict.fromkeys(("open", "high", "low", "close"), np.full(n, price))
    return Bars(timestamp, {**prices, "volume": np.full(n, volume)})


def features_of(bars: Bars, rows: int = LOOKBACK) -> FeatureRows:
    """Return the features of the last rows, as a client would compute them."""
    stacked = TECH23.stack(bars, NEUTRAL)[None]
    return FeatureRows(TECH23.features, TECH23.compute(stacked, bars.timestamp[None], rows)[0])


def real_requests(bars: Mapping[str, Bars], n: int, position: Position = FLAT) -> list[SignalRequest]:
    """Return n requests about different windows of the symbols that the shipped bundles know."""
    symbols = ("AAPL", "GOOG", "IBM", "MSFT")
    return [SignalRequest(symbols[i % 4], window(bars[symbols[i % 4]], ago=7 * i), position) for i in range(n)]


def every_form(symbol: str, bars: Bars) -> Mapping[str, tuple[str, dict[str, Any]]]:
    """Return name of the form → path and body; all of them ask about the same bar."""
    features = features_of(bars)
    rows = features.values.tolist()
    feature_rows = [dict(zip(features.columns, row, strict=True)) for row in rows]
    return {
        "rows": ("/v1/signals", {"symbol": symbol, "bars": bars_as_rows(bars)}),
        "columns": ("/v1/signals", {"symbol": symbol, "bars": bars_as_columns(bars)}),
        "features": ("/v1/signals", {"symbol": symbol, "features": {"columns": list(features.columns), "rows": rows}}),
        "batch": ("/v1/signals:batch", {"requests": [{"symbol": symbol, "bars": bars_as_rows(bars)}]}),
        "predict with bars": ("/predict", {"symbol": symbol, "historical_data": bars_as_rows(bars)}),
        "predict with features": ("/predict", {"symbol": symbol, "historical_data": feature_rows}),
    }


def probability_of(document: Mapping[str, Any]) -> float:
    """Return the probability of an answer in any form."""
    answer = document["results"][0] if "results" in document else document
    value: float = answer["prediction_probability"]
    return value


class RowwiseModel:
    """A model whose logit is the last scaled close of each row: bit for bit the same in every batch."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        """Answer a batch, and remember how large it was."""
        self.batches.append(len(batch))
        logits = batch.windows[:, -1, TECH23.features.index(CLOSE)].copy()
        return PredictionBatch(batch.digest, logits, 1 / (1 + np.exp(-logits.astype(np.float64))))


class Failing:
    """A stage that raises the same error whatever it is asked, and counts how often it was."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    async def run(self, _batch: Batch) -> Any:
        """Raise."""
        self.calls += 1
        raise self.error


def with_stages(pipeline: Pipeline, **stages: Any) -> Pipeline:
    """Return a pipeline of the same bundle with some stages replaced."""
    kept = {field.name: getattr(pipeline.stages, field.name) for field in dataclasses.fields(Stages)}
    return Pipeline(pipeline.bundle, Stages(**{**kept, **stages}))


def in_torch(bundle: Bundle) -> Bundle:
    """Return a shipped bundle as it was trained, before it was exported."""
    config = bundle.config.model_copy(update={"runtime": Runtime.TORCH})
    return dataclasses.replace(bundle, config=config, programs={}, gates=())


def on_other_features(bundle: Bundle, folder: Path) -> Bundle:
    """Write a shipped bundle as one whose features have names that nobody here computes."""
    names = tuple(f"alpha_{i}" for i in range(len(bundle.config.feature_list)))
    blind: dict[str, Any] = {
        "model_version": "v4.0",
        "feature_set": None,
        "feature_list": names,
        "bars_needed": 0,
        "exogenous": {},
    }
    unbuilt = dataclasses.replace(bundle, path=folder, config=bundle.config.model_copy(update=blind))
    golden = asyncio.run(record_golden(unbuilt, drawn_windows(unbuilt, 60)))
    return write_bundle(dataclasses.replace(unbuilt, golden=golden))


def documented(openapi: Mapping[str, Any]) -> list[tuple[str, str, Any]]:
    """Return path, name and body of every JSON example in an OpenAPI document."""
    return [
        (path, name, example["value"])
        for path, methods in openapi["paths"].items()
        if "requestBody" in methods.get("post", {})
        for name, example in methods["post"]["requestBody"]["content"]["application/json"]["examples"].items()
    ]


def arrow_stream(table: pa.Table, chunk: int | None = None, **options: Any) -> bytes:
    """Return a table as the body of a request, in record batches of at most `chunk` rows."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table, max_chunksize=chunk)
    return sink.getvalue()


def arrow_table(requests: Sequence[SignalRequest]) -> pa.Table:
    """Return requests with bars as one long table."""
    tables = []
    for number, request in enumerate(requests):
        history = request.history
        assert isinstance(history, Bars)
        n, times = len(history), pa.array(history.timestamp).cast(pa.timestamp("us", "UTC"))
        own = {"symbol": [request.symbol] * n, "request": [number] * n, "timestamp": times}
        tables.append(pa.table({**own, **history.columns}))
    return pa.concat_tables(tables)


def values(items: Sequence[Any], name: str) -> list[Any]:
    """Return one attribute of every item."""
    return [getattr(item, name) for item in items]
