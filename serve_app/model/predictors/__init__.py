"""What computes a network: torch, a TorchScript program, or an ONNX graph. Each imports only what it runs on."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from serve_app.config import ModelConfig
from serve_app.errors import BundleError, ConfigError
from serve_app.model.bundle import NETWORKS, Bundle
from serve_app.types import Float32Array, Precision, Runtime


class Predictor(Protocol):
    """A network that is ready to answer, on one device and in one precision."""

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""

    @property
    def in_eval_mode(self) -> bool:
        """Whether no part of it is in training mode."""

    def prepare_thread(self) -> None:
        """Set up the thread that will ask."""

    def logits(self, windows: Float32Array, asset_ids: NDArray[np.int64]) -> Float32Array:
        """Return logits (B,) for scaled windows (B, L, F) and asset ids (B,). Blocks."""


def one_logit_each(logits: NDArray[Any], n: int) -> Float32Array:
    """Return what a network gave for n windows as (n,). Raises BundleError for a head of another shape."""
    if logits.shape not in {(n,), (n, 1)}:
        raise BundleError(
            f"a head of unknown meaning: the network gives {logits.shape} for {n} windows; one logit a window, (B,) or"
            " (B, 1), can be served"
        )
    flat: Float32Array = logits.reshape(n).astype(np.float32, copy=False)
    return flat


def chosen(bundle: Bundle, config: ModelConfig) -> tuple[Runtime, Precision]:
    """Return with what a bundle is computed.

    Raises ConfigError for a runtime that it has no file for, and for one that has not passed the gate.
    """
    own = bundle.config
    runtime = config.runtime or own.runtime
    precision = config.precision or (own.precision if runtime is own.runtime else Precision.FP32)
    if runtime not in bundle.runtimes:
        raise ConfigError(
            f"{bundle.version} has no {NETWORKS[runtime]}; it runs on {', '.join(bundle.runtimes)}. `signalgraph bundle"
            f" export --runtime {runtime}` makes a version that has"
        )
    if (runtime, precision) not in admitted(bundle):
        raise ConfigError(
            f"nothing shows that {bundle.version} decides alike on {runtime} in {precision}; `signalgraph bundle export"
            f" --runtime {runtime} --precision {precision}` holds it against {reference(bundle)[0]} and makes a version"
        )
    return runtime, precision


def reference(bundle: Bundle) -> tuple[Runtime, Precision]:
    """Return what exports are held against: the weights, or the one program that the bundle came with."""
    return (bundle.runtimes[0], Precision.FP32)


def admitted(bundle: Bundle) -> tuple[tuple[Runtime, Precision], ...]:
    """Return everything that may compute a bundle: the reference, and what has passed the gate."""
    return (reference(bundle), *((report.runtime, report.precision) for report in bundle.gates))


def build_predictor(bundle: Bundle, runtime: Runtime, precision: Precision, threads: int) -> Predictor:
    """Make what computes a bundle.

    Raises ConfigError for a precision that this machine or this runtime does not have, BundleError for a program that
    is not safe or does not load.
    """
    if runtime is Runtime.ONNX:
        from serve_app.model.predictors.graph import OnnxGraph  # noqa: PLC0415

        return OnnxGraph(bundle.programs[runtime], threads)
    if runtime is Runtime.TORCHSCRIPT:
        from serve_app.model.predictors.network import TorchNetwork  # noqa: PLC0415
        from serve_app.model.predictors.script import load_script  # noqa: PLC0415

        return TorchNetwork(load_script(bundle.programs[runtime]), precision, threads)
    from serve_app.model.predictors.network import TorchNetwork, module_of  # noqa: PLC0415

    return TorchNetwork(module_of(bundle), precision, threads)
