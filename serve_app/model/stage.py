"""The model stage: a batch of windows → a batch of predictions, one forward pass for all of them."""

import asyncio
import logging
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from scipy.special import expit

from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import OutOfMemory, StageFailed
from serve_app.model.bundle import Bundle
from serve_app.model.golden import golden_batch
from serve_app.model.predictors import build_predictor, chosen
from serve_app.types import Float32Array

log = logging.getLogger(__name__)

DEFAULTS = ModelConfig()
QUICK_S = 2 * sys.getswitchinterval()
"""A pass that is over sooner is made where it is asked for: under load the way to a thread and back takes as long,
since the thread waits twice for the interpreter's lock, each time until the event loop must let go of it."""
_PASSES = 3
"""Of each size, to see how long one takes: the quickest, since a machine that starts a graph has much else to do."""
STUCK_S = 60.0
"""A forward pass takes milliseconds; after this long its thread is taken for dead."""


class Model:
    """One bundle's network, in the runtime and precision that the configuration or the bundle names.

    Raises ConfigError for a runtime or precision that the bundle, the machine or the gate does not allow.
    """

    def __init__(
        self,
        bundle: Bundle,
        config: ModelConfig = DEFAULTS,
        clock: Callable[[], float] = time.monotonic,
        out_of_memory: Callable[[], None] | None = None,
    ) -> None:
        self._clock = clock
        self._started: float | None = None
        self._apart: set[Future[PredictionBatch]] = set()
        self._out_of_memory = out_of_memory
        self._ceiling: int | None = None
        self._quick_rows = 0
        self._prepared_here = False
        self.runtime, self.precision = chosen(bundle, config)
        self._predictor = build_predictor(bundle, self.runtime, self.precision, config.threads)
        # One thread of ours: the event loop stays free, and batches do not fight for cores.
        self._window = (bundle.config.lookback_window, len(bundle.config.feature_list))
        self._executor = ThreadPoolExecutor(1, "model", initializer=self._predictor.prepare_thread)

    @property
    def device(self) -> str:
        """`cpu` or `cuda`."""
        return self._predictor.device

    @property
    def in_eval_mode(self) -> bool:
        """Whether no part of the network is in training mode: no dropout, batch norm as it was trained."""
        return self._predictor.in_eval_mode

    def forward(self, batch: WindowBatch) -> Float32Array:
        """Return the logits (B,) of windows (B, L, F), NaN for a window that is not finite throughout. Blocks.

        Raises StageFailed for anything but one or more windows of the bundle's shape, and as many asset ids: the
        recurrent layers of ONNX Runtime end the process when they are given an empty batch.
        """
        if not len(batch) or batch.windows.shape != (len(batch), *self._window):
            raise StageFailed(
                f"windows of shape {batch.windows.shape} for {len(batch)} asset ids; this model takes one or more of"
                f" {self._window} each"
            )
        logits = self._within_memory(batch)
        # ONNX Runtime's recurrent layers make a number of NaN; no such number may become a probability.
        finite = np.isfinite(batch.windows)
        return logits if finite.all() else np.where(finite.all(axis=(1, 2)), logits, np.float32(np.nan))

    def _within_memory(self, batch: WindowBatch) -> Float32Array:
        """Halve the ceiling when the device runs out of memory, and try once more. The ceiling stays.

        Raises OutOfMemory when half is too much as well; the router then tries halves of the batch itself.
        Tried outside of `except`, and logged as text: the error holds the frames that failed, and what they allocated.
        """
        try:
            return self._in_pieces(batch)
        except OutOfMemory as error:
            self._ceiling = max(1, min(self._ceiling or len(batch), len(batch)) // 2)
            if self._out_of_memory is not None:
                self._out_of_memory()
            log.warning("from now on %d rows at most in one forward pass: %s", self._ceiling, str(error))
        return self._in_pieces(batch)

    def _in_pieces(self, batch: WindowBatch) -> Float32Array:
        size = self._ceiling or len(batch)
        windows, ids = batch.windows, batch.asset_ids
        starts = range(0, len(batch), size)
        pieces = [self._predictor.logits(windows[i : i + size], ids[i : i + size]) for i in starts]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def predict(self, batch: WindowBatch) -> PredictionBatch:
        """Return logits and probabilities. Blocks."""
        logits = self.forward(batch)
        return PredictionBatch(batch.digest, logits, expit(logits.astype(np.float64)), self.precision)

    def warm_up(self, bundle: Bundle, rows: int) -> None:
        """Compute golden windows in batches of 1, 2, 4, … up to `rows`, in the thread that will serve. Blocks.

        The passes of a size after its first, which are warm, show whether it is quick.

        A bundle that is still being built has no golden windows, and takes no requests: there is nothing to do.
        """
        if not len(bundle.golden):
            return
        for power in range(rows.bit_length()):
            batch = golden_batch(bundle, 1 << power)
            self._timed(batch)
            if min(self._timed(batch) for _ in range(_PASSES)) <= QUICK_S:
                self._quick_rows = len(batch)

    def _timed(self, batch: WindowBatch) -> float:
        """Return how long a pass takes that nobody waits for, in s."""
        started = self._clock()
        self._executor.submit(self.forward, batch).result()
        return self._clock() - started

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        """Do what `predict` does, in the model's own thread unless it is quicker than the way there.

        What takes longer never runs on the event loop, and nothing runs there beside a pass of the thread.
        """
        if len(batch) <= self._quick_rows and not self._apart:
            return self._predict_here(batch)
        apart = self._executor.submit(self._predict_apart, batch)
        self._apart.add(apart)
        # Of the thread's own future: who awaits it may give up at a deadline, and the pass goes on.
        apart.add_done_callback(self._apart.discard)
        return await asyncio.wrap_future(apart)

    def _predict_apart(self, batch: WindowBatch) -> PredictionBatch:
        """Do what `predict` does, in the model's own thread, and note since when."""
        self._started = self._clock()
        try:
            return self.predict(batch)
        finally:
            self._started = None

    def _predict_here(self, batch: WindowBatch) -> PredictionBatch:
        if not self._prepared_here:
            self._predictor.prepare_thread()
            self._prepared_here = True
        return self.predict(batch)

    def check_health(self) -> None:
        """Raise StageFailed when a forward pass has not come back for STUCK_S."""
        started = self._started  # the thread may clear it at any time
        if started is not None and self._clock() - started > STUCK_S:
            raise StageFailed(f"a forward pass has not come back for {STUCK_S:.0f} s")
