"""Ray Serve as one composes it first: four deployments, handles, pydantic bodies, a request a hop, default settings."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import work
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from ray import serve
from ray.serve.handle import DeploymentHandle

api = FastAPI()


class Features(BaseModel):
    columns: list[str]
    rows: list[list[float]]


class Request(BaseModel):
    symbol: str
    features: Features


@serve.deployment(ray_actor_options={"num_cpus": 0.2})
class Preprocess:
    def run(self, request: Request) -> tuple[work.Windows, int] | None:
        df = pd.DataFrame(request.features.rows, columns=request.features.columns)
        if request.symbol not in work.SYMBOLS or not set(work.COLUMNS) <= set(df) or len(df) < work.LOOKBACK:
            return None
        return work.scaled(df[work.COLUMNS].tail(work.LOOKBACK).to_numpy()), work.SYMBOLS[request.symbol]


@serve.deployment(ray_actor_options={"num_cpus": 0.5})
class Model:
    def __init__(self) -> None:
        self.model = work.Model()

    @serve.batch(max_batch_size=64, batch_wait_timeout_s=0.005)
    async def run(self, rows: list[tuple[work.Windows, int]]) -> list[float]:
        windows, asset_ids = zip(*rows, strict=True)
        return self.model.probabilities(np.stack(windows), np.array(asset_ids)).tolist()


@serve.deployment(ray_actor_options={"num_cpus": 0.1})
class Strategy:
    def run(self, probability: float) -> str:
        return work.action(probability)


@serve.deployment(ray_actor_options={"num_cpus": 0.2})
@serve.ingress(api)
class Router:
    def __init__(
        self,
        preprocess: DeploymentHandle[Any],
        model: DeploymentHandle[Any],
        strategy: DeploymentHandle[Any],
    ) -> None:
        self.preprocess, self.model, self.strategy = preprocess, model, strategy

    @api.post("/v1/signals")
    async def signals(self, request: Request) -> dict[str, object]:
        row = await self.preprocess.run.remote(request)
        if row is None:
            raise HTTPException(422, "unknown symbol, or columns or rows are missing")
        probability = await self.model.run.remote(row)
        action = await self.strategy.run.remote(probability)
        return {
            "prediction_probability": probability,
            "recommended_action": action,
            "timestamp": datetime.now(UTC).isoformat(),
        }


app = Router.bind(Preprocess.bind(), Model.bind(), Strategy.bind())
