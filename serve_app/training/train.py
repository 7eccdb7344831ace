"""The whole way from bars to a trained model, as one function of its settings."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from serve_app.errors import ConfigError, UnusableRequest
from serve_app.model import LabelDefinition
from serve_app.model.architectures import SignalNetwork, build_architecture, dimension_names
from serve_app.model.bundle import Dimension
from serve_app.preprocess import FEATURE_SETS, FeatureSet, Scaler, check_bars
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.training.fit import FitReport, FitSettings, Progress, fit, predict, reproducible, silent
from serve_app.training.metrics import choose_threshold, evaluate
from serve_app.training.samples import FeatureTable, Samples, feature_table, fit_scaler, make_samples
from serve_app.training.splits import Cuts, Split, default_cuts, split_by_time
from serve_app.types import Bars


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides a model, besides its bars.

    `dimensions` holds the architecture's own choices; the number of features, assets and rows is added. Without
    `cuts` the distinct timestamps are cut at 70 % and 85 %.
    """

    architecture: str
    label: LabelDefinition
    dimensions: Mapping[str, Dimension] = field(default_factory=dict)
    feature_set: str = "tech23.v1"
    lookback_window: int = 24
    exogenous: Mapping[str, float] = field(default_factory=lambda: {SENTIMENT: 0.5})
    """Neutral defaults of exogenous columns that the bars do not carry."""
    fit: FitSettings = field(default_factory=FitSettings)
    cuts: Cuts | None = None
    min_coverage: float = 0.05
    """Least share of validation windows that must signal at the chosen threshold."""


@dataclass(frozen=True, slots=True)
class DataRange:
    """First and last decision time (ISO 8601, UTC) and number of the windows of a period; None if it has none."""

    start: str | None
    end: str | None
    windows: int


@dataclass(frozen=True, slots=True)
class TrainedModel:
    """A model and everything that must travel with it. `module` is in eval mode."""

    settings: TrainSettings
    module: SignalNetwork
    dimensions: Mapping[str, Dimension]
    """All of the architecture's dimensions, those from the data included: what rebuilds `module`."""
    scaler: Scaler
    symbol_to_id: Mapping[str, int]
    left_out: Mapping[str, str]
    """Symbol → why it has no id."""
    threshold: float
    """Chosen on the validation period."""
    metrics: Mapping[str, Mapping[str, float | None]]
    """Of the periods `validation` and `test`, at `threshold`."""
    ranges: Mapping[str, DataRange]
    """Of the periods `train`, `validation` and `test`."""
    cuts: Cuts
    report: FitReport


def train(settings: TrainSettings, bars_by_symbol: Mapping[str, Bars], progress: Progress = silent) -> TrainedModel:
    """Train a model on the bars of many symbols. Pure: the same arguments give the same weights to the bit.

    Raises:
        ConfigError: an unknown architecture, dimension or feature set, or periods without usable windows.
    """
    tables = _tables(settings, bars_by_symbol)
    cuts = settings.cuts or default_cuts(bars.timestamp for bars in bars_by_symbol.values())
    splits = {name: split_by_time(t.timestamps, cuts, settings.label.horizon_bars) for name, t in tables.items()}
    known = [symbol for symbol in sorted(tables) if (tables[symbol].usable & splits[symbol].train).any()]
    if not known:
        raise ConfigError(f"no symbol has a complete window up to {cuts.train_end}; give more bars or later cuts")
    scaler = fit_scaler([tables[symbol] for symbol in known], cuts.train_end)
    periods = _periods(settings, [tables[s] for s in known], [splits[s] for s in known], scaler)

    dimensions = _dimensions(settings, len(known))
    with reproducible(settings.fit.seed, settings.fit.threads):
        module = build_architecture(settings.architecture, dimensions)
    report = fit(module, periods["train"], periods["validation"], settings.fit, progress)

    probabilities = {name: predict(module, periods[name]) for name in ("validation", "test") if len(periods[name])}
    threshold = choose_threshold(periods["validation"].labels, probabilities["validation"], settings.min_coverage)
    return TrainedModel(
        settings=settings,
        module=module,
        dimensions=dimensions,
        scaler=scaler,
        symbol_to_id={symbol: number for number, symbol in enumerate(known)},
        left_out={s: _why_left_out(tables[s], splits[s], cuts) for s in sorted(tables) if s not in known},
        threshold=threshold,
        metrics={name: evaluate(periods[name].labels, p, threshold) for name, p in probabilities.items()},
        ranges={name: _data_range(samples) for name, samples in periods.items()},
        cuts=cuts,
        report=report,
    )


def _tables(settings: TrainSettings, bars_by_symbol: Mapping[str, Bars]) -> dict[str, FeatureTable]:
    if settings.feature_set not in FEATURE_SETS:
        raise ConfigError(f"unknown feature set {settings.feature_set!r}; choose one of {', '.join(FEATURE_SETS)}")
    feature_set = FEATURE_SETS[settings.feature_set]
    for symbol, bars in bars_by_symbol.items():
        _check(symbol, bars, feature_set)
    return {
        symbol: feature_table(bars, feature_set, settings.lookback_window, settings.label, settings.exogenous)
        for symbol, bars in bars_by_symbol.items()
    }


def _check(symbol: str, bars: Bars, feature_set: FeatureSet) -> None:
    """Hold training data to what serving accepts. Columns that the feature set does not know are not used."""
    known = {name: values for name, values in bars.columns.items() if name in feature_set.columns}
    try:
        check_bars(Bars(bars.timestamp, known), feature_set)
    except UnusableRequest as error:
        raise type(error)(f"{symbol}: {error}", **error.detail) from error


def _periods(
    settings: TrainSettings, tables: list[FeatureTable], splits: list[Split], scaler: Scaler
) -> dict[str, Samples]:
    masks = {
        "train": [split.train for split in splits],
        "validation": [split.validation for split in splits],
        "test": [split.test for split in splits],
    }
    by_id = dict(enumerate(tables))
    return {
        name: make_samples(by_id, dict(enumerate(chosen)), scaler, settings.lookback_window)
        for name, chosen in masks.items()
    }


def _dimensions(settings: TrainSettings, num_assets: int) -> dict[str, Dimension]:
    of_data = {
        "n_features": len(FEATURE_SETS[settings.feature_set].features),
        "lookback_window": settings.lookback_window,
        "num_assets": num_assets,
    }
    wanted = dimension_names(settings.architecture)
    return {**{name: value for name, value in of_data.items() if name in wanted}, **settings.dimensions}


def _why_left_out(table: FeatureTable, split: Split, cuts: Cuts) -> str:
    n_train, end = int(split.train.sum()), np.datetime_as_string(cuts.train_end, unit="s")
    return f"{len(table.labels)} bars, {n_train} of them labelled by {end}Z: no complete training window"


def _data_range(samples: Samples) -> DataRange:
    if not len(samples):
        return DataRange(None, None, 0)
    start, end = (
        np.datetime_as_string(t, unit="s") + "Z" for t in (samples.timestamps.min(), samples.timestamps.max())
    )
    return DataRange(start, end, len(samples))
