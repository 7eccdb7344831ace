"""How many rows a second a model computes on this machine."""

import asyncio
import statistics
import time
from typing import TYPE_CHECKING

from serve_app.batches import WindowBatch
from serve_app.model import Bundle
from serve_app.model.golden import golden_batch

if TYPE_CHECKING:
    from serve_app.model.stage import Model

LEAST_S = 0.3
"""For how long a batch size is measured."""
WARM_UP = 5


def rows_per_s(bundle: Bundle, model: "Model", batch_size: int) -> float:
    """Return rows a second in batches of one size, from the median pass in the thread that serves."""
    return asyncio.run(_rate(model, golden_batch(bundle, batch_size)))


async def _rate(model: "Model", batch: WindowBatch) -> float:
    for _ in range(WARM_UP):
        await model.run(batch)
    started, passes = time.perf_counter(), []
    while (begun := time.perf_counter()) - started < LEAST_S:
        await model.run(batch)
        passes.append(time.perf_counter() - begun)
    return len(batch) / statistics.median(passes)
