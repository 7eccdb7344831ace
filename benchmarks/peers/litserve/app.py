"""LitServe: batches of up to 64, numpy, ONNX Runtime.

Tried: waits of 0.5, 2 and 5 ms, one and two API servers, one and two workers, both queues; this
answered most at 64 connections.
"""

import sys

import litserve
import numpy as np
import work
from fastapi import HTTPException


class Signals(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002  LitServe's own signature
        self.model = work.Model()

    def decode_request(self, request: dict[str, object]) -> tuple[work.Windows, int]:
        try:
            return work.window(request)
        except work.BadRequest as error:
            raise HTTPException(422, str(error)) from error

    def batch(self, inputs: list[tuple[work.Windows, int]]) -> tuple[work.Windows, list[int]]:
        windows, asset_ids = zip(*inputs, strict=True)
        return np.stack(windows), list(asset_ids)

    def predict(self, batch: tuple[work.Windows, list[int]]) -> list[float]:
        windows, asset_ids = batch
        return self.model.probabilities(windows, np.array(asset_ids)).tolist()

    def unbatch(self, output: list[float]) -> list[float]:
        return output

    def encode_response(self, output: float) -> dict[str, object]:
        return work.answer(output)


if __name__ == "__main__":
    signals = Signals(max_batch_size=64, batch_timeout=0.002, api_path="/v1/signals")
    server = litserve.LitServer(
        signals,
        accelerator="cpu",
        workers_per_device=1,
        fast_queue=True,
    )
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[1]),
        num_api_servers=2,
        log_level="warning",
        generate_client_file=False,
    )
