"""Networks → programs: an ONNX graph, or TorchScript. Windows keep their number of rows, batches are of any length."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from serve_app.errors import BundleError, ConfigError
from serve_app.model.bundle import Bundle
from serve_app.model.predictors.graph import ASSET_IDS, FEATURES, LOGITS
from serve_app.model.predictors.network import module_of
from serve_app.types import Precision, Runtime

OPSET = 18


def export_network(bundle: Bundle, runtime: Runtime, precision: Precision) -> bytes:
    """Return the network of a bundle as a program.

    Raises:
        BundleError: the bundle has no weights to export, being a program itself.
        ConfigError: no such program can be made in this precision.
    """
    if not bundle.weights:
        raise BundleError(
            f"{bundle.version} is a program for {bundle.config.runtime} without weights; export it elsewhere"
        )
    if runtime is Runtime.ONNX:
        return _onnx(bundle, precision)
    if runtime is Runtime.TORCHSCRIPT:
        return _torchscript(bundle)
    raise ConfigError(f"{runtime} is no program")


def _example(bundle: Bundle) -> tuple[Tensor, Tensor]:
    """Windows and asset ids; more than one, since exporters take a length of one for a constant."""
    shape = (2, bundle.config.lookback_window, len(bundle.config.feature_list))
    return torch.zeros(shape), torch.zeros(2, dtype=torch.int64)


def _torchscript(bundle: Bundle) -> bytes:
    buffer = io.BytesIO()
    with _quiet():
        traced = torch.jit.trace(module_of(bundle), _example(bundle))  # type: ignore[no-untyped-call]
        torch.jit.save(torch.jit.freeze(traced), buffer)
    return buffer.getvalue()


def _onnx(bundle: Bundle, precision: Precision) -> bytes:
    if precision is Precision.BF16:
        raise ConfigError("ONNX Runtime has no BF16 kernels for these networks; export fp32 or fp16, or torch in bf16")
    batch = {0: torch.export.Dim("batch", min=1)}
    with _quiet():
        exported = torch.onnx.export(
            module_of(bundle),
            _example(bundle),
            input_names=[FEATURES, ASSET_IDS],
            output_names=[LOGITS],
            dynamic_shapes={FEATURES: batch, ASSET_IDS: batch},
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None  # noqa: S101  it is, with dynamo
    graph = exported.model_proto
    # Where each node came from: paths of this machine, and other bytes on another one.
    for part in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    if precision is Precision.FP16:
        from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

        graph = convert_float_to_float16(graph, keep_io_types=True)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep to ourselves what exporters say on the way: the gate judges what they made."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), Path(os.devnull).open("w") as nothing, contextlib.redirect_stdout(nothing):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
