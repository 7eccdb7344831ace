"""The FastAPI script that a quant writes first: pydantic bodies, a DataFrame a request, torch; one worker."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel
from safetensors.torch import load_file
from torch import nn

REFERENCE = Path(__file__).parents[2] / "reference"
torch.set_num_threads(1)


class Attention(nn.Module):
    def __init__(self, hidden: int, attention: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, attention)
        self.key = nn.Linear(hidden, attention)
        self.value = nn.Linear(hidden, hidden)
        self.scale = attention**0.5

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.query(x) @ self.key(x).transpose(1, 2) / self.scale, dim=-1) @ self.value(x)


class LstmAttention(nn.Module):
    def __init__(self, features: int, assets: int, embedding: int = 8, hidden: int = 128, attention: int = 64) -> None:
        super().__init__()
        self.asset_embedding = nn.Embedding(assets, embedding)
        self.input_projection = nn.Linear(features + embedding, hidden)
        self.lstm = nn.LSTM(hidden, hidden, 1, batch_first=True)
        self.layer_norm = nn.LayerNorm(hidden)
        self.attention = Attention(hidden, attention)
        self.classifier = nn.Sequential(
            nn.Linear(hidden, hidden // 2), nn.ReLU(), nn.Dropout(0.4), nn.Linear(hidden // 2, 1)
        )

    def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        asset = self.asset_embedding(ids).unsqueeze(1).expand(-1, x.shape[1], -1)
        hidden, _ = self.lstm(self.input_projection(torch.cat([x, asset], dim=-1)))
        return self.classifier(self.attention(self.layer_norm(hidden)).mean(dim=1)).squeeze(-1)


class Strategy:
    def __init__(self) -> None:
        config = json.loads((REFERENCE / "config.json").read_text())
        self.features = config["feature_list"]
        self.lookback = config["lookback_window"]
        self.threshold = config["strategy"]["signal_threshold"]
        self.symbols = json.loads((REFERENCE / "asset_id_mapping.json").read_text())["symbol_to_id"]
        scaler = json.loads((REFERENCE / "scaler.json").read_text())
        self.mean, self.scale = np.array(scaler["mean"]), np.array(scaler["scale"])
        self.model = LstmAttention(len(self.features), len(self.symbols))
        self.model.load_state_dict(load_file(REFERENCE / "model.safetensors"))
        self.model.eval()

    def prepare_input_sequence(self, df: pd.DataFrame, symbol: str) -> tuple[torch.Tensor, torch.Tensor] | None:
        if len(df) < self.lookback or symbol not in self.symbols or not set(self.features) <= set(df.columns):
            return None
        window = df[self.features].tail(self.lookback).ffill().bfill()
        scaled = (window.to_numpy() - self.mean) / self.scale
        if not np.isfinite(scaled).all():
            return None
        return torch.tensor(scaled, dtype=torch.float32).unsqueeze(0), torch.tensor([self.symbols[symbol]])

    @torch.inference_mode()
    def get_model_prediction(self, features: torch.Tensor, ids: torch.Tensor) -> float:
        return float(torch.sigmoid(self.model(features, ids)))


app = FastAPI()
strategy = Strategy()


class PredictionRequest(BaseModel):
    symbol: str
    historical_data: list[dict[str, Any]]


class PredictionResponse(BaseModel):
    prediction_probability: float
    recommended_action: str
    timestamp: str


@app.post("/predict", response_model=PredictionResponse)
async def predict(request: PredictionRequest) -> PredictionResponse:
    prepared = strategy.prepare_input_sequence(pd.DataFrame(request.historical_data), request.symbol)
    if prepared is None:
        raise HTTPException(status_code=400, detail="Insufficient data")
    probability = strategy.get_model_prediction(*prepared)
    return PredictionResponse(
        prediction_probability=probability,
        recommended_action="BUY" if probability >= strategy.threshold else "HOLD",
        timestamp=datetime.now().isoformat(),  # noqa: DTZ005  as scripts do
    )
