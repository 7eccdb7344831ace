"""FastAPI at its best without batches: raw bodies, numpy, orjson, ONNX Runtime, two uvicorn workers."""

import numpy as np
import orjson
import work
from fastapi import FastAPI, Request, Response

app = FastAPI()
model = work.Model()


@app.post("/v1/signals")
async def signals(request: Request) -> Response:
    try:
        window, asset_id = work.window_of(await request.body())
    except work.BadRequest as error:
        return Response(orjson.dumps({"error": str(error)}), 422, media_type="application/json")
    (probability,) = model.probabilities(window[None], np.array([asset_id]))
    return Response(orjson.dumps(work.answer(probability)), media_type="application/json")
