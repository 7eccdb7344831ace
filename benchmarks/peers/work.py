"""The work as the peers do it that take numpy: check a request, scale its window, run the model, answer.

Needs numpy, orjson and ONNX Runtime alone, and nothing of SignalGraph: a peer's environment has no more.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import orjson
from numpy.typing import NDArray

REFERENCE = Path(__file__).parents[1] / "reference"
Windows = NDArray[np.float32]


class BadRequest(ValueError):
    """The request cannot be answered; the message says why."""


def _read(name: str) -> Any:
    return json.loads((REFERENCE / name).read_text())


CONFIG = _read("config.json")
COLUMNS: list[str] = CONFIG["feature_list"]
LOOKBACK: int = CONFIG["lookback_window"]
THRESHOLD: float = CONFIG["strategy"]["signal_threshold"]
SYMBOLS: dict[str, int] = _read("asset_id_mapping.json")["symbol_to_id"]
_SCALER = _read("scaler.json")
MEAN = np.array(_SCALER["mean"], np.float64)
SCALE = np.array(_SCALER["scale"], np.float64)


def window_of(body: bytes) -> tuple[Windows, int]:
    """Return the scaled window (24, 23) and the asset id of a request's body. Raises BadRequest."""
    try:
        return window(orjson.loads(body))
    except orjson.JSONDecodeError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error


def window(request: Any) -> tuple[Windows, int]:
    """The same of a decoded body."""
    try:
        symbol, features = request["symbol"], request["features"]
        columns, rows = features["columns"], np.array(features["rows"], np.float64)
    except (LookupError, TypeError, ValueError) as error:
        raise BadRequest(f"not a signal request: {error}") from error
    if symbol not in SYMBOLS:
        raise BadRequest(f"unknown symbol {symbol!r}")
    if columns != COLUMNS:
        rows = _in_order(columns, rows)
    if rows.ndim != 2 or rows.shape[1] != len(COLUMNS) or len(rows) < LOOKBACK:
        raise BadRequest(f"features have shape {rows.shape}, at least ({LOOKBACK}, {len(COLUMNS)}) is needed")
    rows = rows[-LOOKBACK:]
    if not np.isfinite(rows).all():
        raise BadRequest("features are not finite")
    return scaled(rows), SYMBOLS[symbol]


def _in_order(columns: list[str], rows: NDArray[np.float64]) -> NDArray[np.float64]:
    try:
        return rows[:, [columns.index(name) for name in COLUMNS]]
    except (ValueError, IndexError) as error:
        raise BadRequest(f"features miss a column: {error}") from error


def scaled(rows: NDArray[np.float64]) -> Windows:
    """Scale features (..., 23) as in training."""
    return ((rows - MEAN) / SCALE).astype(np.float32)


class Model:
    """The reference model on one thread."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(REFERENCE / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )

    def probabilities(self, windows: Windows, asset_ids: NDArray[np.int64]) -> NDArray[np.float64]:
        """Map windows (B, 24, 23) and ids (B,) to probabilities (B,)."""
        (logits,) = self._session.run(["logits"], {"features": windows, "asset_ids": asset_ids})
        return np.asarray(1.0 / (1.0 + np.exp(-logits.astype(np.float64))))


def action(probability: float) -> str:
    """Return what to do with a flat position."""
    return "BUY" if probability >= THRESHOLD else "HOLD"


def answer(probability: float) -> dict[str, object]:
    """Return the document of an answer."""
    return {
        "prediction_probability": float(probability),
        "recommended_action": action(probability),
        "timestamp": datetime.now(UTC).isoformat(),
    }
