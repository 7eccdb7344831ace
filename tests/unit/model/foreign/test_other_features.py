"""A model on features that nobody here computes is served by the `features` form, and says so."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.audit import histories_of
from serve_app.config import ModelConfig
from serve_app.doctor import Verdict, examine
from serve_app.documentation import examples_of
from serve_app.errors import FeaturesNeeded, MissingColumns, TooManyMissing
from serve_app.model import Bundle, load_bundle
from serve_app.model.foreign.convert import Reading, Sources, read_foreign
from serve_app.parity import check_golden, golden_requests
from serve_app.pipeline import Pipeline, local_stages, rules_of
from serve_app.preprocess import TECH23
from serve_app.training.golden import DRAWN
from serve_app.training.imported import golden_notes, import_bundle, unbuilt_bundle
from serve_app.types import Bars, FeatureRows, HoldingUnit, SignalRequest
from tests.factories import window
from tests.unit.model.foreign.files import (
    LOOKBACK,
    SETTINGS,
    network,
    original,
    scaling,
    unscaled,
    write,
    write_sources,
)

NAMES = tuple(TECH23.features)
OTHERS = tuple(f"alpha_{i}" for i in range(len(NAMES)))


@pytest.fixture
def sources(classes: Any, tmp_path: Path) -> Sources:
    return write_sources(tmp_path, network(classes, "gru_attention"), "bare", scaling("json"), ("json", "flat"))


def on_features(sources: Sources, names: tuple[str, ...]) -> Sources:
    return replace(sources, feature_list=write(sources.model.parent / "list.txt", "\n".join([*names, ""]).encode()))


@pytest.fixture
def imported(sources: Sources, tmp_path: Path) -> Bundle:
    foreign = read_foreign(on_features(sources, OTHERS), Reading(isolated=False))
    return import_bundle(foreign, SETTINGS, {}, "bokeh", tmp_path / "models/v2.0")


def pipeline_of(bundle: Bundle) -> Pipeline:
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("Open", *NAMES[1:]), "it has Open; it lacks open"),
        ((*NAMES[:9], "Return_1h", *NAMES[10:]), "it has Return_1h; it lacks MACD_signal"),
        ((NAMES[1], NAMES[0], *NAMES[2:]), "in another order: feature 0 is high, there open"),
    ],
)
def test_names_and_order_decide_and_aliases_are_not_guessed(
    sources: Sources, tmp_path: Path, names: tuple[str, ...], reason: str
) -> None:
    foreign = read_foreign(on_features(sources, names), Reading(isolated=False))
    bundle = unbuilt_bundle(foreign, SETTINGS, tmp_path / "v2.0")
    assert (bundle.config.feature_set, bundle.config.bars_needed, bundle.config.feature_list) == (None, 0, names)
    [said] = [note for note in bundle.metadata["known_differences"]["files"] if reason in note]
    assert "takes the `features` form only" in said
    assert "write ours in the feature list" in said


def test_it_answers_features_as_the_original_did(classes: Any, imported: Bundle) -> None:
    module, fitted = network(classes, "gru_attention"), scaling("json")
    features = unscaled(np.random.default_rng(3), LOOKBACK)
    pipeline = pipeline_of(imported)
    [outcome] = asyncio.run(pipeline.run([pipeline.row(SignalRequest("IBM", FeatureRows(OTHERS, features)))]))
    assert outcome.probability == pytest.approx(original(module, fitted, "IBM", features), abs=1e-6)


def test_bars_are_refused_with_the_columns_to_send(imported: Bundle, bars: dict[str, Bars]) -> None:
    with pytest.raises(
        FeaturesNeeded, match=r"model v2\.0 .*send `features` with the columns alpha_0, .*alpha_22"
    ) as e:
        pipeline_of(imported).row(SignalRequest("IBM", window(bars["IBM"])))
    assert e.value.detail["features"] == list(OTHERS)
    with pytest.raises(FeaturesNeeded, match="nothing to hold its bars against"):
        histories_of(imported, rules_of(imported), bars)


def test_its_features_are_checked_like_any_others(imported: Bundle) -> None:
    pipeline, values = pipeline_of(imported), np.ones((LOOKBACK, len(OTHERS)))
    with pytest.raises(MissingColumns, match="alpha_0"):
        pipeline.row(SignalRequest("IBM", FeatureRows(NAMES, values)))
    values[:10] = np.nan
    with pytest.raises(TooManyMissing):
        pipeline.row(SignalRequest("IBM", FeatureRows(OTHERS, values)))


def test_its_golden_cases_are_drawn_from_the_scaler_and_hold(imported: Bundle) -> None:
    loaded = load_bundle(imported.path)
    assert loaded.golden.features.shape == (12, LOOKBACK, len(OTHERS))
    assert loaded.metadata["golden_cases"] == {"source": DRAWN}
    assert golden_notes(loaded) == []
    asyncio.run(check_golden(pipeline_of(loaded)))


def test_it_is_examined_and_documented_like_any_other(imported: Bundle, bars: dict[str, Bars]) -> None:
    diagnosis = examine(imported.path)
    assert {str(check.verdict) for check in diagnosis.checks if check.name not in {"memory", "versions"}} == {"ok"}
    [features] = [check for check in examine(imported.path, bars).checks if check.name == "features"]
    assert (features.verdict, "not computed here" in features.finding) == (Verdict.FAIL, True)
    examples = examples_of(golden_requests(imported.golden, rules_of(imported).feature_set, HoldingUnit.HOURS))
    assert examples.signals["features as columns"]["features"]["columns"] == list(OTHERS)
    assert set(examples.predict["features"]["historical_data"][0]) == set(OTHERS)
