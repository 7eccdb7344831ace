"""Models that are programs: TorchScript and ONNX are kept as they are, once it is seen what they answer."""

import io
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import BundleError, ConfigError
from serve_app.model.predictors import Predictor
from serve_app.types import Float32Array, Precision, Runtime

SAME = 1e-4
"""Of logits: what a window's neighbours in a batch may change. A graph of a fixed batch changes more, or fails."""
NOT_LOGITS = {"sigmoid", "softmax", "logsigmoid", "log_softmax", "logsoftmax", "hardsigmoid"}
ANY_ROW = sys.maxsize
"""Nobody but the program knows how many rows its embedding has."""


def runtime_of(path: Path, content: bytes) -> Runtime:
    """Say what a model file is: a program for ONNX Runtime or TorchScript, or weights. Raises BundleError."""
    if path.suffix.lower() == ".onnx":
        return Runtime.ONNX
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return Runtime.TORCH
    try:
        names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    except zipfile.BadZipFile as error:
        raise BundleError(f"{path} is a broken archive: {error}; copy it again from where it was trained") from error
    is_script = any("/code/" in name or name.endswith("/constants.pkl") for name in names)
    return Runtime.TORCHSCRIPT if is_script else Runtime.TORCH


def load_program(runtime: Runtime, content: bytes) -> tuple[Predictor, int | None]:
    """Load a program, and say how many rows its windows must have if it says so. Raises BundleError."""
    if runtime is Runtime.ONNX:
        from serve_app.model.predictors.graph import OnnxGraph, last_operator  # noqa: PLC0415

        graph = OnnxGraph(content, threads=1)
        _refuse_probabilities(last_operator(content))
        return graph, graph.lookback_window
    from serve_app.model.predictors.network import TorchNetwork  # noqa: PLC0415
    from serve_app.model.predictors.script import last_function, load_script  # noqa: PLC0415

    module = load_script(content)
    _refuse_probabilities(last_function(module))
    return TorchNetwork(module, Precision.FP32, threads=1), None


def _refuse_probabilities(operator: str) -> None:
    if operator.lower() in NOT_LOGITS:
        raise BundleError(
            f"a head of unknown meaning: the program ends in {operator}, and what it gives are no logits, which alone"
            " can be served; export the network without that last layer"
        )


def rows_of(own: int | None, asked: int | None, otherwise: int) -> tuple[int, list[str]]:
    """Return the rows of a window and what is to be said about them. Raises ConfigError for a contradiction."""
    if own is not None and asked not in {None, own}:
        raise ConfigError(f"--lookback says {asked} rows, but the graph takes {own}")
    if own is not None or asked is not None:
        return own or asked or otherwise, []
    return otherwise, [f"the program does not say how long a window is; lookback_window {otherwise} is assumed"]


def check_program(predictor: Predictor, symbol_to_id: Mapping[str, int], lookback_window: int, n_features: int) -> None:
    """See that a program answers every symbol of its map, one logit a window, whatever else is in the batch.

    Raises BundleError.
    """
    ids = np.array(list(symbol_to_id.values()), dtype=np.int64)
    shape = (max(len(ids), 3), lookback_window, n_features)
    windows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    first = np.repeat(ids[:1], len(windows))
    together = _answer(predictor, windows, first, f"{n_features} features in {lookback_window} rows")
    alone = _answer(predictor, windows[1:2], first[:1], "a batch of one")
    if not np.isfinite(together).all():
        raise BundleError("the program gives no finite logit for windows of ordinary size; it cannot be served")
    if not np.allclose(alone, together[1:2], rtol=SAME, atol=SAME):
        raise BundleError(
            f"the program answers a window with {alone[0]} alone and {together[1]} in a batch: windows must not touch"
            " each other; export the network in eval mode, with a batch of any length"
        )
    for symbol, number in symbol_to_id.items():
        _answer(predictor, windows[:1], np.array([number]), f"the id {number} that the asset map gives {symbol!r}")


def _answer(predictor: Predictor, windows: Float32Array, ids: NDArray[np.int64], what: str) -> Float32Array:
    try:
        return predictor.logits(windows, ids)
    except BundleError:
        raise
    except Exception as error:
        said = next((line for line in str(error).splitlines()[::-1] if line.strip()), type(error).__name__)
        raise BundleError(
            f"the program does not take {what}: {said.strip()}. Model, feature list and asset map must belong together"
        ) from error
