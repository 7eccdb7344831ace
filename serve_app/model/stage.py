"""The model stage: a batch of windows → a batch of predictions, one forward pass for all of them."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from serve_app.errors import StageFailed
from serve_app.model.architectures import build_architecture
from serve_app.model.bundle import Bundle
from serve_app.types import Float32Array, FloatArray, PredictionBatch, WindowBatch

STUCK_S = 60.0
"""A forward pass takes milliseconds; after this long its thread is taken for dead."""


class Model:
    """One bundle's network, in FP32, on CUDA when it is there."""

    def __init__(self, bundle: Bundle, threads: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started: float | None = None
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # FP32 means FP32: cuDNN would compute recurrent layers and convolutions in TF32, three digits less.
        torch.backends.cudnn.allow_tf32 = False
        # One thread of ours and a fixed number of torch's: the event loop stays free, batches do not fight for cores.
        self._executor = ThreadPoolExecutor(1, "model", initializer=torch.set_num_threads, initargs=(threads,))
        module = build_architecture(bundle.config.architecture, bundle.config.dimensions)
        module.load_state_dict({name: torch.from_numpy(values.copy()) for name, values in bundle.weights.items()})
        self._module = module.to(self.device).eval()

    @property
    def in_eval_mode(self) -> bool:
        """Whether no part of the network is in training mode: no dropout, batch norm as it was trained."""
        return not any(part.training for part in self._module.modules())

    def forward(self, batch: WindowBatch) -> Float32Array:
        """Return the logits (B,) of windows (B, L, F). Blocks."""
        with torch.inference_mode():
            # Copies: arrays that came over a hop are read-only, which torch tensors cannot be.
            windows = torch.tensor(batch.windows, device=self.device)
            logits = self._module(windows, torch.tensor(batch.asset_ids, device=self.device))
        result: Float32Array = logits.cpu().numpy()
        return result

    def predict(self, batch: WindowBatch) -> PredictionBatch:
        """Return logits and probabilities. Blocks."""
        logits = self.forward(batch)
        probabilities: FloatArray = torch.from_numpy(logits).double().sigmoid().numpy()
        return PredictionBatch(batch.digest, logits, probabilities)

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        """Do what `predict` does, in the model's own thread: torch never runs on the event loop."""
        self._started = self._clock()
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, self.predict, batch)
        finally:
            self._started = None

    def check_health(self) -> None:
        """Raise StageFailed when a forward pass has not come back for STUCK_S."""
        if self._started is not None and self._clock() - self._started > STUCK_S:
            raise StageFailed(f"a forward pass has not come back for {STUCK_S:.0f} s")
