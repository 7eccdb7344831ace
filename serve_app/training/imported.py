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
from serve_app.model.bundle import tag_of
from serve_app.model.foreign.convert import ForeignModel
from serve_app.pipeline import rules_of
from serve_app.preprocess import FEATURE_SETS, FeatureSet, names_only, usual_interval_s
from serve_app.preprocess.feature_sets import OBV_BARS, SENTIMENT
from serve_app.training.build import data_version
from serve_app.training.golden import DRAWN, decision_points, drawn_windows, record_golden
from serve_app.types import Bars, SignalRequest, Thresholds

N_DRAWN = 240
"""Windows from which golden cases are chosen, where there are no bars to compute features from."""
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
    mlflow_run_id: str | None = None
    """Of the run that the files came from."""


def unbuilt_bundle(foreign: ForeignModel, settings: ImportSettings, folder: Path) -> Bundle:
    """Return the bundle of a foreign model, without golden cases and not written yet.

    A model on features that are not computed here takes the `features` form only. Raises ConfigError for settings that
    no bundle can have.
    """
    feature_set = _feature_set(foreign.feature_list)
    try:
        config = BundleConfig(
            model_version=settings.version,
            architecture=foreign.architecture,
            dimensions=dict(foreign.dimensions),
            runtime=foreign.runtime,
            feature_set=feature_set.name if feature_set.computed else None,
            feature_list=feature_set.features,
            lookback_window=foreign.lookback_window,
            bar_interval_s=settings.bar_interval_s,
            exogenous=dict(EXOGENOUS) if feature_set.computed else {},
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
        metadata=_metadata(foreign, settings, feature_set),
        weights=foreign.weights,
        programs={} if foreign.program is None else {foreign.runtime: foreign.program},
        golden=Golden.nothing(),
    )


def import_bundle(
    foreign: ForeignModel, settings: ImportSettings, bars_by_symbol: Mapping[str, Bars], data_source: str, folder: Path
) -> Bundle:
    """Write a foreign model as a bundle, with golden cases from real bars, and return it as read back.

    Golden cases of a model on other features are drawn from what its scaler knows.

    Raises:
        FileExistsError: the folder is there already.
        BundleError: the bars hold no symbol of its asset map with enough history.
        ConfigError: settings that no bundle can have.
    """
    unbuilt = unbuilt_bundle(foreign, settings, folder)
    if unbuilt.config.feature_set is None:
        candidates, recorded = drawn_windows(unbuilt, N_DRAWN), {"source": DRAWN}
    else:
        candidates, recorded = _from_bars(unbuilt, bars_by_symbol, data_source)
    golden = asyncio.run(record_golden(unbuilt, candidates))
    return write_bundle(replace(unbuilt, golden=golden, metadata={**unbuilt.metadata, "golden_cases": recorded}))


def _from_bars(
    bundle: Bundle, bars_by_symbol: Mapping[str, Bars], source: str
) -> tuple[list[SignalRequest], dict[str, Any]]:
    bars = usable_bars(bundle, bars_by_symbol, source)
    recorded = {
        "source": source,
        "data_version": data_version(bars),
        "symbols": sorted(bars),
        "bar_interval_s": usual_interval_s(bars),
    }
    return decision_points(bundle, bars), recorded


def golden_notes(bundle: Bundle) -> list[str]:
    """Say what is odd about the golden cases: bars of another interval, features far from what the scaler knows."""
    notes = []
    expected = bundle.config.bar_interval_s
    seen = bundle.metadata["golden_cases"].get("bar_interval_s", expected)
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
    return next((known for known in FEATURE_SETS.values() if known.features == tuple(names)), names_only(names))


def _only_features(names: Sequence[str]) -> str:
    """Say that, and why, a bundle takes no bars."""
    return (
        f"{_how_unlike(names)}. So the bundle takes the `features` form only: clients send {', '.join(names)},"
        " unscaled. Names are not guessed: if a feature is the same under another name, write ours in the feature list"
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


def usable_bars(bundle: Bundle, bars_by_symbol: Mapping[str, Bars], source: str) -> dict[str, Bars]:
    """Return the bars of the symbols that the model knows and that have a whole window, in columns that it knows.

    Raises BundleError when there are none.
    """
    known = rules_of(bundle).feature_set.columns
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


def _metadata(foreign: ForeignModel, settings: ImportSettings, feature_set: FeatureSet) -> dict[str, Any]:
    others = [] if feature_set.computed else [_only_features(foreign.feature_list)]
    return {
        "model_version": settings.version,
        "training_date": None,
        "mlflow_run_id": settings.mlflow_run_id,
        "git_commit": None,
        "git_tag": tag_of(settings.version),
        "training_data_version": None,
        "architecture": foreign.architecture,
        "performance_metrics": dict(foreign.metrics),
        "hyperparameters": dict(foreign.config),
        "imported": {"imported_at": settings.imported_at.isoformat(), **foreign.origin},
        "known_differences": {
            "files": [*others, *foreign.differences],
            "features": dict(FEATURE_DIFFERENCES) if feature_set.computed else {},
            "label": "as given at the import, whatever training assumed",
        },
        "known_biases": ["trained elsewhere: nothing is known of its data but what the checkpoint says"],
    }
