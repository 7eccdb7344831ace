"""Ray Serve by its documentation in one deployment: `serve.batch` around ONNX Runtime, raw bodies, two replicas."""

import asyncio

import numpy as np
import orjson
import work
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(num_replicas=2, max_ongoing_requests=2048, ray_actor_options={"num_cpus": 0.4})
class Signals:
    def __init__(self) -> None:
        self.model = work.Model()

    @serve.batch(
        max_batch_size=64,
        batch_wait_timeout_s=0.002,
    )
    async def probabilities(self, rows: list[tuple[work.Windows, int]]) -> list[float]:
        windows, asset_ids = zip(*rows, strict=True)
        batch = np.stack(windows), np.array(asset_ids)
        return (await asyncio.to_thread(self.model.probabilities, *batch)).tolist()

    async def __call__(self, request: Request) -> Response:
        try:
            row = work.window_of(await request.body())
        except work.BadRequest as error:
            return Response(orjson.dumps({"error": str(error)}), 422, media_type="application/json")
        return Response(orjson.dumps(work.answer(await self.probabilities(row))), media_type="application/json")


app = Signals.bind()
