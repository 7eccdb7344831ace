"""A trained model → a bundle: golden cases through the serving pipeline, memory measured, facts written down."""

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.errors import BundleError
from serve_app.model import Bundle, BundleConfig, Golden, ScalerFile, write_bundle
from serve_app.model.bundle import tag_of
from serve_app.preprocess import FEATURE_SETS, FeatureSet, usual_interval_s
from serve_app.preprocess.memory import measure_memory
from serve_app.training.golden import decision_points, record_golden
from serve_app.training.reference import make_reference, seen_in_training
from serve_app.training.train import TrainedModel
from serve_app.types import Bars, HoldingUnit, Thresholds


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where a model comes from: what cannot be derived from the model itself."""

    version: str
    trained_at: datetime
    git_commit: str | None
    data_source: str
    known_biases: Sequence[str]
    mlflow_run_id: str | None = None


def data_version(bars_by_symbol: Mapping[str, Bars]) -> str:
    """Return a digest of all bars, so that two bundles show whether they saw the same data."""
    digest = hashlib.sha256()
    for symbol, bars in sorted(bars_by_symbol.items()):
        digest.update(symbol.encode())
        for values in (bars.timestamp, *(bars.columns[name] for name in sorted(bars.columns))):
            digest.update(np.ascontiguousarray(values).tobytes())
    return f"sha256:{digest.hexdigest()}"


def _config(trained: TrainedModel, version: str, bar_interval_s: float) -> BundleConfig:
    settings = trained.settings
    feature_set = FEATURE_SETS[settings.feature_set]
    return BundleConfig(
        model_version=version,
        architecture=settings.architecture,
        dimensions=dict(trained.dimensions),
        feature_set=feature_set.name,
        feature_list=feature_set.features,
        lookback_window=settings.lookback_window,
        bar_interval_s=bar_interval_s,
        exogenous=dict(settings.exogenous),
        bars_needed=feature_set.bars_needed(settings.lookback_window),
        strategy=Thresholds(
            signal_threshold=trained.threshold,
            # A position is held for no longer than the label looks ahead.
            max_holding_period=settings.label.horizon_bars,
            holding_unit=HoldingUnit.BARS,
        ),
        label=settings.label,
    )


def _metadata(trained: TrainedModel, provenance: Provenance, version_of_data: str) -> dict[str, Any]:
    settings = trained.settings
    return {
        "model_version": provenance.version,
        "training_date": provenance.trained_at.isoformat(),
        "mlflow_run_id": provenance.mlflow_run_id,
        "git_commit": provenance.git_commit,
        "git_tag": tag_of(provenance.version),
        "training_data_source": provenance.data_source,
        "training_data_version": version_of_data,
        "architecture": settings.architecture,
        "performance_metrics": trained.metrics,
        "hyperparameters": {**trained.dimensions, **asdict(settings.fit), "min_coverage": settings.min_coverage},
        "training": asdict(trained.report),
        "data_ranges": {name: asdict(period) for name, period in trained.ranges.items()},
        "symbols_left_out": dict(trained.left_out),
        "known_biases": list(provenance.known_biases),
    }


def _check_memory(feature_set: FeatureSet, bars: Bars, exogenous: Mapping[str, float]) -> None:
    """Hold the declared memory of every feature against what it is measured to read."""
    recent = bars.tail(feature_set.memory + 50)
    measured = measure_memory(feature_set, feature_set.stack(recent, exogenous), recent.timestamp)
    wrong = {
        name: (feature.memory, measured[name])
        for name, feature in feature_set.definitions.items()
        if feature.memory != measured[name]
    }
    if wrong:
        raise BundleError(f"{feature_set.name} declares another memory than its features read: {wrong}")


def build_bundle(
    trained: TrainedModel, bars_by_symbol: Mapping[str, Bars], provenance: Provenance, folder: Path
) -> Bundle:
    """Write a trained model as a bundle and return it as read back.

    Raises FileExistsError when the folder is there already, BundleError when a feature's memory is not as declared.
    """
    settings = trained.settings
    known = {symbol: bars_by_symbol[symbol] for symbol in trained.symbol_to_id}
    _check_memory(FEATURE_SETS[settings.feature_set], next(iter(known.values())), settings.exogenous)
    unbuilt = Bundle(
        path=folder,
        digest="unbuilt",
        config=_config(trained, provenance.version, usual_interval_s(known)),
        scaler=ScalerFile(mean=trained.scaler.mean.tolist(), scale=trained.scaler.scale.tolist()),
        symbol_to_id=trained.symbol_to_id,
        metadata=_metadata(trained, provenance, data_version(bars_by_symbol)),
        weights={name: tensor.numpy() for name, tensor in trained.module.state_dict().items()},
        golden=Golden.nothing(),
    )
    golden = asyncio.run(record_golden(unbuilt, decision_points(unbuilt, bars_by_symbol)))
    seen = seen_in_training(unbuilt, known, trained.cuts.train_end)
    # Without a symbol that has enough bars there is none: such a model is for trying things out.
    reference = make_reference(unbuilt, seen) if seen else None
    return write_bundle(replace(unbuilt, golden=golden, reference=reference))
