"""Models as training code elsewhere leaves them behind, in every form of their files."""

import asyncio
import io
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import psutil
import pytest
import torch
from sklearn.preprocessing import RobustScaler, StandardScaler
from torch import Tensor, nn

from serve_app.config import ModelConfig
from serve_app.model import Bundle, LabelDefinition
from serve_app.model.foreign.convert import Reading, Sources
from serve_app.pipeline import Pipeline, local_stages
from serve_app.preprocess import TECH23
from serve_app.training.imported import ImportSettings
from serve_app.types import Bars, FeatureRows, FloatArray, SignalRequest, Thresholds
from tests.factories import features_of

N_FEATURES, LOOKBACK = 23, 24
SYMBOLS = {"AAPL": 0, "BRK.B": 1, "IBM": 2, "MSFT": 4}
N_ASSETS = 5
NOW = datetime(2026, 1, 2, tzinfo=UTC)
SETTINGS = ImportSettings("v2.0", NOW, Thresholds(signal_threshold=0.5), LabelDefinition(0.05, 0.02, 8), 3600.0)
TRUST = Reading(trust_pickle=True)

CLASSES = '''
"""Networks with classes of their own, which nobody who serves has."""
import torch
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, h, a):
        super().__init__()
        self.query, self.key, self.value = nn.Linear(h, a), nn.Linear(h, a), nn.Linear(h, h)
        self.a = a

    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        return torch.bmm(torch.softmax(torch.bmm(q, k.transpose(1, 2)) / self.a ** 0.5, dim=-1), v)


class MLPModel(nn.Module):
    def __init__(self, f=23, length=24, assets=5, e=3, hidden=(12, 7), outputs=1, gelu=False):
        super().__init__()
        self.asset_embedding = nn.Embedding(assets, e)
        layers, width = [], f * length + e
        for h in hidden:
            layers += [nn.Linear(width, h), nn.GELU() if gelu else nn.ReLU(), nn.Dropout(0.3)]
            width = h
        self.mlp = nn.Sequential(*layers, nn.Linear(width, outputs))

    def forward(self, features, asset_ids):
        return self.mlp(torch.cat([features.flatten(1), self.asset_embedding(asset_ids)], dim=1))


class Recurrent(nn.Module):
    def __init__(self, f=23, assets=5, e=3, h=10, layers=2, a=6, norm=True, outputs=1):
        super().__init__()
        self.asset_embedding = nn.Embedding(assets, e)
        self.input_projection = nn.Linear(f + e, h)
        setattr(self, self.kind, getattr(nn, self.kind.upper())(h, h, layers, batch_first=True, dropout=0.3))
        if norm:
            self.layer_norm = nn.LayerNorm(h)
        self.norm = norm
        self.attention = Attention(h, a)
        self.classifier = nn.Sequential(nn.Linear(h, h // 2), nn.ReLU(), nn.Dropout(0.3), nn.Linear(h // 2, outputs))

    def forward(self, features, asset_ids):
        embedded = self.asset_embedding(asset_ids)[:, None].repeat(1, features.shape[1], 1)
        x, _ = getattr(self, self.kind)(self.input_projection(torch.cat([features, embedded], dim=-1)))
        x = self.layer_norm(x) if self.norm else x
        return self.classifier(self.attention(x).mean(dim=1))


class LSTMAttentionModel(Recurrent):
    kind = "lstm"


class GRUAttentionModel(Recurrent):
    kind = "gru"


class CNNLSTMModel(nn.Module):
    def __init__(self, f=23, assets=5, e=3, filters=(8, 6), kernels=(3, 5), h=10, a=6, pool=True, outputs=1):
        super().__init__()
        self.asset_embedding = nn.Embedding(assets, e)
        blocks, width = [], f + e
        for n, k in zip(filters, kernels):
            block = [nn.Conv1d(width, n, k, padding=k // 2), nn.BatchNorm1d(n), nn.ReLU(), nn.Dropout(0.3)]
            blocks.append(nn.Sequential(*block, *([nn.MaxPool1d(2)] if pool else [])))
            width = n
        self.cnn_layers = nn.ModuleList(blocks)
        self.lstm = nn.LSTM(width, h, 1, batch_first=True)
        self.attention = Attention(h, a) if a else None
        self.classifier = nn.Sequential(nn.Linear(h, h // 2), nn.ReLU(), nn.Dropout(0.3), nn.Linear(h // 2, outputs))

    def forward(self, features, asset_ids):
        embedded = self.asset_embedding(asset_ids)[:, None].repeat(1, features.shape[1], 1)
        x = torch.cat([features, embedded], dim=-1).transpose(1, 2)
        for block in self.cnn_layers:
            x = block(x)
        x, _ = self.lstm(x.transpose(1, 2))
        return self.classifier(self.attention(x).mean(dim=1) if self.attention else x[:, -1])
'''
CLASS_OF = {
    "mlp": "MLPModel",
    "lstm_attention": "LSTMAttentionModel",
    "gru_attention": "GRUAttentionModel",
    "cnn_lstm": "CNNLSTMModel",
}

PREFIXES = ("", "_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod.")
PROGRAMS = {"torchscript": "net.ts", "onnx": "net.onnx"}
WITHOUT_EXTRAS = ("module", "bare", *PROGRAMS)
"""Forms that hold a network and nothing around it."""
MODEL_FORMS = (*WITHOUT_EXTRAS, "dict model", *(f"model_state_dict {prefix}".strip() for prefix in PREFIXES))
SCALER_FORMS = ("bare", "global", "per feature", "robust", "json", "checkpoint")
MAP_FORMS = ("nested", "flat", "checkpoint")
PAIRS = [pair for shift in range(3) for i, s in enumerate(SCALER_FORMS) for pair in [(s, MAP_FORMS[(i + shift) % 3])]]
"""Scaler form and mapping form; the first six have every scaler form and every mapping form."""


def network(classes: Any, architecture: str, **sizes: Any) -> nn.Module:
    """A network whose answers depend on all of its parts, batch norm's running statistics among them."""
    torch.manual_seed(3)
    module: nn.Module = getattr(classes, CLASS_OF[architecture])(**sizes)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.mul_(1.7)
    module.train()(torch.randn(32, LOOKBACK, sizes.get("f", N_FEATURES)), torch.arange(32) % N_ASSETS)
    return module.eval()


def unscaled(rng: np.random.Generator, rows: int) -> FloatArray:
    """Features of very different sizes, as prices, volumes and OBV are."""
    size = np.geomspace(0.01, 1e7, N_FEATURES)
    return np.asarray(size * (rng.normal(3, 1, N_FEATURES) + rng.normal(0, 1, (rows, N_FEATURES))))


@dataclass(frozen=True)
class Scaling:
    """A fitted scaler: what stands in the file, and what it does."""

    content: Any
    columns: tuple[Any, ...]
    """One for all features, or one a feature."""

    def transform(self, features: FloatArray) -> FloatArray:
        if len(self.columns) == 1:
            return np.asarray(self.columns[0].transform(features))
        parts = [scaler.transform(features[:, [i]]) for i, scaler in enumerate(self.columns)]
        return np.concatenate(parts, axis=1)


def scaling(form: str, bars: Bars | None = None) -> Scaling:
    """A scaler in one of SCALER_FORMS, fitted on made-up features or on those of bars."""
    training = unscaled(np.random.default_rng(5), 500) if bars is None else features_of(bars, 1000).values
    if form == "per feature":
        each = tuple(StandardScaler().fit(training[:, [i]]) for i in range(N_FEATURES))
        return Scaling({f"feature_{i}": scaler for i, scaler in enumerate(each)}, each)
    one = (RobustScaler() if form == "robust" else StandardScaler()).fit(training)
    if form == "json":
        return Scaling({"mean": one.mean_.tolist(), "scale": one.scale_.tolist()}, (one,))
    return Scaling(one if form in {"bare", "robust"} else {"global": one}, (one,))


def original(module: nn.Module, fitted: Scaling, symbol: str, features: FloatArray) -> float:
    """The probability of the network itself, after its own scaler."""
    scaled = torch.tensor(fitted.transform(features), dtype=torch.float32)[None]
    with torch.no_grad():
        logit: Tensor = module(scaled, torch.tensor([SYMBOLS[symbol]]))
    return float(torch.sigmoid(logit.double()))


def saved(value: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def write(path: Path, content: Any) -> Path:
    """Write bytes as they are, text lists a name a line, the rest as JSON."""
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def model_content(module: nn.Module, form: str, extras: Mapping[str, Any]) -> Any:
    """The object that a model file of one of MODEL_FORMS holds."""
    if form == "module":
        return module
    if form == "bare":
        return module.state_dict()
    if form == "dict model":
        return {"model": module, **extras}
    prefix = form.removeprefix("model_state_dict").strip()
    state = {prefix + name: value for name, value in module.state_dict().items()}
    return {"epoch": 3, "model_state_dict": state, **extras}


def program(
    module: nn.Module, form: str, *, features: int = N_FEATURES, batch: int | None = None, **names: Any
) -> bytes:
    """A network as others export it; with a batch that is fixed, or other names, if asked for."""
    example = torch.randn(batch or 2, LOOKBACK, features), torch.zeros(batch or 2, dtype=torch.int64)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "torchscript":
            torch.jit.save(torch.jit.trace(module, example), buffer)  # type: ignore[no-untyped-call]
            return buffer.getvalue()
        ends = {"input_names": ["features", "asset_ids"], "output_names": ["logits"], **names}
        free = {} if batch else {name: {0: "batch"} for name in [*ends["input_names"], *ends["output_names"]]}
        target: Any = buffer  # the annotation forgets what the legacy exporter takes
        torch.onnx.export(module, example, target, dynamo=False, dynamic_axes=free, opset_version=14, **ends)
    return buffer.getvalue()


def write_sources(folder: Path, module: nn.Module, model_form: str, fitted: Scaling, forms: tuple[str, str]) -> Sources:
    """Write a model, its scaler, map and feature list; the last two forms say where the scaler and the map go."""
    folder.mkdir(exist_ok=True)
    scaler_form, map_form = forms
    extras: dict[str, Any] = {"config": {"use_pooling": True}}
    within = model_form not in WITHOUT_EXTRAS
    if within:
        extras["config"]["feature_list"] = list(TECH23.features)
    if scaler_form == "checkpoint":
        extras["scalers"] = fitted.content
    if map_form == "checkpoint":
        extras["asset_id_map"] = SYMBOLS
    content = (
        program(module, model_form) if model_form in PROGRAMS else saved(model_content(module, model_form, extras))
    )
    sources = Sources(write(folder / PROGRAMS.get(model_form, "best_model.pt"), content))
    if not within:
        sources = replace(sources, feature_list=write(folder / "features.json", list(TECH23.features)))
    if scaler_form == "json":
        sources = replace(sources, scaler=write(folder / "scaler.json", fitted.content))
    elif scaler_form != "checkpoint":
        joblib.dump(fitted.content, folder / "scalers.joblib")
        sources = replace(sources, scaler=folder / "scalers.joblib")
    if map_form != "checkpoint":
        mapping = {"metadata": {}, "symbol_to_id": SYMBOLS} if map_form == "nested" else SYMBOLS
        sources = replace(sources, asset_map=write(folder / "asset_id_mapping.json", mapping))
    return sources


class Trap:
    """A pickle that runs a command when it is read."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"touch {self.marker}",))


class Endless:
    """A pickle that says that it runs, and then never ends."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, (f"echo $$ > {self.marker}; exec sleep 1000",))


def is_gone(pid: int) -> bool:
    """Whether a process has ended."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def served(bundle: Bundle, symbol: str, features: FloatArray) -> float:
    """The probability of an imported bundle, through the stages that serve."""
    pipeline = Pipeline(bundle, local_stages(bundle, ModelConfig()))
    row = pipeline.row(SignalRequest(symbol, FeatureRows(TECH23.features, features)))
    [outcome] = asyncio.run(pipeline.run([row]))
    assert outcome.probability is not None
    return outcome.probability


def assert_same(bundle: Bundle, module: nn.Module, fitted: Scaling, bars: Bars | None = None) -> None:
    rng = np.random.default_rng(11)
    answers = set()
    for i, symbol in enumerate(SYMBOLS):
        features = unscaled(rng, LOOKBACK) if bars is None else features_of(bars.until(900 + 500 * i)).values
        expected = original(module, fitted, symbol, features)
        assert served(bundle, symbol, features) == pytest.approx(expected, abs=1e-6)
        answers.add(round(expected, 3))
    assert len(answers) > 1  # a network that always says the same would prove nothing
