"""Networks in torch: those built here with the weights of a bundle, and TorchScript programs."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from serve_app.errors import ConfigError, OutOfMemory
from serve_app.model.architectures import build_architecture
from serve_app.model.bundle import Bundle
from serve_app.model.predictors import one_logit_each
from serve_app.types import Float32Array, Precision

_TYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16}


def module_of(bundle: Bundle) -> nn.Module:
    """Build the network of a bundle. Raises RuntimeError when the weights are another architecture's."""
    module = build_architecture(bundle.config.architecture, bundle.config.dimensions)
    module.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in bundle.weights.items()})
    return module.eval()


class TorchNetwork:
    """A module on CUDA when it is there, in FP32 or under autocast. Raises ConfigError for a precision it lacks."""

    def __init__(self, module: nn.Module, precision: Precision, threads: int) -> None:
        self._threads = threads
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        _check_precision(precision, self._device.type)
        # FP32 means FP32: cuDNN would compute recurrent layers and convolutions in TF32, three digits less.
        torch.backends.cudnn.allow_tf32 = False
        self._type = _TYPES.get(precision)
        self._module = module.to(self._device)

    @property
    def device(self) -> str:
        """Where it runs."""
        return self._device.type

    @property
    def in_eval_mode(self) -> bool:
        """Whether no part of the network is in training mode: no dropout, batch norm as it was trained."""
        return not any(part.training for part in self._module.modules())

    def prepare_thread(self) -> None:
        """Fix torch's threads, which is a setting of the thread that asks: batches must not fight for cores."""
        torch.set_num_threads(self._threads)

    def logits(self, windows: Float32Array, asset_ids: NDArray[np.int64]) -> Float32Array:
        """Return logits (B,) for scaled windows (B, L, F) and asset ids (B,)."""
        with (
            torch.inference_mode(),
            torch.autocast(self._device.type, dtype=self._type, enabled=self._type is not None),
        ):
            try:
                logits = self._module(self._given(windows), self._given(asset_ids)).float().cpu().numpy()
            except torch.OutOfMemoryError as error:
                raise OutOfMemory(str(error)) from error
        return one_logit_each(logits, len(windows))

    def _given(self, values: NDArray[Any]) -> torch.Tensor:
        """Copy an array to the device; from pinned memory, so that the copy runs while the CPU goes on.

        Copied on the CPU, too: arrays that came over a hop are read-only, which torch tensors cannot be.
        """
        pinned = torch.tensor(values, pin_memory=self._device.type == "cuda")
        return pinned.to(self._device, non_blocking=True)


def _check_precision(precision: Precision, device: str) -> None:
    if device == "cpu" and precision is Precision.FP16:
        raise ConfigError("fp16 needs a GPU in torch, and there is none here; use fp32 or bf16, or the runtime onnx")
    if device == "cpu" and precision is Precision.BF16 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():  # noqa: SLF001  torch has no public name for it
        raise ConfigError("this CPU has no BF16; use fp32")
