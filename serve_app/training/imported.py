"""A model that was trained elsewhere → a bundle: the same golden cases through the same pipeline as our own."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from serve_app.errors import BundleError, ConfigError
from serve_app.model import Bundle, BundleConfig, Golden, LabelDefinition, write_bundle
from serve_app.model.foreign.convert import ForeignModel
from serve_app.preprocess import FEATURE_SETS, FeatureSet
from serve_app.preprocess.feature_sets import OBV_BARS, SENTIMENT
from serve_app.training.build import data_version, record_golden, usual_interval_s
from serve_app.types import Bars, Thresholds

FAR = 20.0
"""Scales from the mean that no feature reaches in the data its scaler was fitted on, but for rare outliers."""

EXOGENOUS: Mapping[str, float] = {SENTIMENT: 0.5}
"""Neutral default, as the models trained elsewhere have it."""

FEATURE_DIFFERENCES: Mapping[str, str] = {
    "OBV": f"summed over {OBV_BARS} bars here; elsewhere cumulative since the start of the history",
    "MACD_line, MACD_signal, MACD_hist": "EMAs cut after 200 and 51 bars here; elsewhere they never forget a bar",
    "vwap": "a bar's typical price here, when a client sends none; elsewhere often cumulative over the data",
    "RSI_14": "100 without a loss and 50 without a move here; elsewhere 99.0099 in both cases",
    "DayOfWeek_sin, DayOfWeek_cos": "of the UTC day here; elsewhere of New York's in some data sets",
    SENTIMENT: "0.5 here, when a client sends none; elsewhere a day's mean, which its morning bars could not know",
    "every rolling feature": "missing until its window is full here; elsewhere computed from what there is",
}
"""tech23.v1 feature → how its definition differs from that of the feature code most such models were trained on."""


@dataclass(frozen=True, slots=True)
class ImportSettings:
    """What the files of a foreign model do not say."""

    version: str
    imported_at: datetime
    thresholds: Thresholds
    label: LabelDefinition
    bar_interval_s: float


def unbuilt_bundle(foreign: ForeignModel, settings: ImportSettings, folder: Path) -> Bundle:
    """Return the bundle of a foreign model, without golden cases and not written yet.

    Raises:
        BundleError: its features are not ones that this version computes.
        ConfigError: settings that no bundle can have.
    """
    feature_set = _feature_set(foreign.feature_list)
    try:
        config = BundleConfig(
            model_version=settings.version,
            architecture=foreign.architecture,
            dimensions=dict(foreign.dimensions),
            feature_set=feature_set.name,
            feature_list=feature_set.features,
            lookback_window=foreign.lookback_window,
            bar_interval_s=settings.bar_interval_s,
            exogenous=dict(EXOGENOUS),
            bars_needed=feature_set.bars_needed(foreign.lookback_window),
            strategy=settings.thresholds,
            label=settings.label,
        )
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"no bundle can be called or set like this: {'; '.join(wrong)}") from error
    return Bundle(
        path=folder,
        digest="unbuilt",
        config=config,
        scaler=foreign.scaler,
        symbol_to_id=foreign.symbol_to_id,
        metadata=_metadata(foreign, settings),
        weights=foreign.weights,
        golden=Golden.nothing(),
    )


def import_bundle(
    foreign: ForeignModel, settings: ImportSettings, bars_by_symbol: Mapping[str, Bars], data_source: str, folder: Path
) -> Bundle:
    """Write a foreign model as a bundle, with golden cases from real bars, and return it as read back.

    Raises:
        FileExistsError: the folder is there already.
        BundleError: its features are not ours, or the bars hold no symbol of its asset map with enough history.
        ConfigError: settings that no bundle can have.
    """
    unbuilt = unbuilt_bundle(foreign, settings, folder)
    bars = _usable(unbuilt, bars_by_symbol, data_source)
    golden = asyncio.run(record_golden(unbuilt, bars))
    recorded = {
        "source": data_source,
        "data_version": data_version(bars),
        "symbols": sorted(bars),
        "bar_interval_s": usual_interval_s(bars),
    }
    return write_bundle(replace(unbuilt, golden=golden, metadata={**unbuilt.metadata, "golden_cases": recorded}))


def golden_notes(bundle: Bundle) -> list[str]:
    """Say what is odd about the golden cases: bars of another interval, features far from what the scaler knows."""
    notes = []
    expected, seen = bundle.config.bar_interval_s, bundle.metadata["golden_cases"]["bar_interval_s"]
    if seen != expected:
        notes.append(_interval_note(seen, expected))
    distances = np.abs(bundle.golden.windows).max(axis=(0, 1))
    far = np.flatnonzero(distances > FAR).tolist()
    if far:
        said = ", ".join(f"{bundle.config.feature_list[i]} ({distances[i]:.0f})" for i in far)
        notes.append(
            f"in the golden cases these features are more than {FAR:g} scales from their means: {said}. Either this"
            " is not the scaler, or the features are not those that the model was trained on"
        )
    return notes


def _interval_note(seen: float, expected: float) -> str:
    return (
        f"the bars of the golden cases are {seen:g} s apart, the bundle is for bars of {expected:g} s: the cases prove"
        " the arithmetic all the same; if the bundle is wrong, import again with another --bar-interval-s"
    )


def _feature_set(names: Sequence[str]) -> FeatureSet:
    for feature_set in FEATURE_SETS.values():
        if feature_set.features == tuple(names):
            return feature_set
    raise BundleError(
        f"{_how_unlike(names)}. Bundles on other features than those of {', '.join(FEATURE_SETS)} are not supported"
        " in this version; names are not guessed: if a feature is the same under another name, write ours in"
        " --feature-list"
    )


def _how_unlike(names: Sequence[str]) -> str:
    ours = next(iter(FEATURE_SETS.values()))
    unknown = [name for name in names if name not in ours.features]
    missing = [name for name in ours.features if name not in names]
    if unknown or missing:
        parts = [f"{what} {', '.join(some)}" for what, some in (("it has", unknown), ("it lacks", missing)) if some]
        return f"the feature list is not that of {ours.name}: {'; '.join(parts)}"
    first = next(i for i, pair in enumerate(zip(names, ours.features, strict=True)) if pair[0] != pair[1])
    return (
        f"the feature list has the names of {ours.name} in another order: feature {first} is {names[first]}, there"
        f" {ours.features[first]}"
    )


def _usable(bundle: Bundle, bars_by_symbol: Mapping[str, Bars], source: str) -> dict[str, Bars]:
    """Return the bars of the symbols that the model knows and that have a whole window, in columns that it knows."""
    known = FEATURE_SETS[bundle.config.feature_set].columns
    needed = bundle.config.bars_needed
    usable = {
        symbol: Bars(bars.timestamp, {name: x for name, x in bars.columns.items() if name in known})
        for symbol, bars in bars_by_symbol.items()
        if symbol in bundle.symbol_to_id and len(bars) >= needed
    }
    if not usable:
        some = ", ".join(sorted(bundle.symbol_to_id)[:8])
        raise BundleError(
            f"{source} has no symbol of the asset map with {needed} bars, so nothing could prove that the bundle is"
            f" served as it was imported; give --data FILE with bars of some of {some}"
        )
    return usable


def _metadata(foreign: ForeignModel, settings: ImportSettings) -> dict[str, Any]:
    return {
        "model_version": settings.version,
        "training_date": None,
        "mlflow_run_id": None,
        "git_commit": None,
        "training_data_version": None,
        "architecture": foreign.architecture,
        "performance_metrics": dict(foreign.metrics),
        "hyperparameters": dict(foreign.config),
        "imported": {"imported_at": settings.imported_at.isoformat(), **foreign.origin},
        "known_differences": {
            "files": list(foreign.differences),
            "features": dict(FEATURE_DIFFERENCES),
            "label": "as given at the import; entry next_open is how this version trades, whatever training assumed",
        },
        "known_biases": ["trained elsewhere: nothing is known of its data but what the checkpoint says"],
    }
