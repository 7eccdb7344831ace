"""BentoML: adaptive batching in one service.

Tried as well: an API service in front of a model service that batches; a third of the requests at 64 connections met
`Server disconnected` between the two, and the rest came at a fifth of the rate. One worker
answered half as many; a latency of 100 ms refused a sixth of the requests.
"""

import bentoml
import numpy as np
import work
from bentoml.exceptions import InvalidArgument
from pydantic import BaseModel


class Features(BaseModel):
    columns: list[str]
    rows: list[list[float]]


class Request(BaseModel):
    symbol: str
    features: Features


class Answer(BaseModel):
    prediction_probability: float
    recommended_action: str
    timestamp: str


@bentoml.service(workers=2, traffic={"timeout": 30})
class Signals:
    def __init__(self) -> None:
        self.model = work.Model()

    @bentoml.api(
        route="/v1/signals",
        batchable=True,
        max_batch_size=64,
        max_latency_ms=1000,
    )
    def signals(self, requests: list[Request]) -> list[Answer]:
        try:
            rows = [work.window(request.model_dump()) for request in requests]
        except work.BadRequest as error:
            raise InvalidArgument(str(error)) from error
        windows, asset_ids = zip(*rows, strict=True)
        probabilities = self.model.probabilities(np.stack(windows), np.array(asset_ids))
        return [Answer.model_validate(work.answer(probability)) for probability in probabilities.tolist()]
