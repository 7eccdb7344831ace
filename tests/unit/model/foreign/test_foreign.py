"""What was trained elsewhere answers here as it did there, in whatever form it comes."""

import asyncio
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from serve_app.config import ModelConfig
from serve_app.model import load_bundle
from serve_app.model.foreign.convert import Reading, read_foreign
from serve_app.parity import check_golden
from serve_app.pipeline import Pipeline, local_stages
from serve_app.preprocess import TECH23
from serve_app.training.imported import golden_notes, import_bundle, unbuilt_bundle
from serve_app.types import Bars, HoldingUnit, Thresholds
from tests.sizes import size
from tests.unit.model.foreign.files import (
    CLASS_OF,
    MODEL_FORMS,
    PAIRS,
    PROGRAMS,
    SETTINGS,
    TRUST,
    WITHOUT_EXTRAS,
    assert_same,
    network,
    saved,
    scaling,
    write,
    write_sources,
)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("model_form", MODEL_FORMS)
@pytest.mark.parametrize("architecture", CLASS_OF)
def test_every_form_of_the_files_gives_the_probability_of_the_original(
    classes: Any, tmp_path: Path, architecture: str, model_form: str
) -> None:
    module = network(classes, architecture)
    done = 0
    for scaler_form, map_form in PAIRS[: size("scaler and map forms")]:
        if model_form in WITHOUT_EXTRAS and "checkpoint" in {scaler_form, map_form}:
            continue  # there is no checkpoint around it
        fitted = scaling(scaler_form)
        sources = write_sources(tmp_path / "in", module, model_form, fitted, (scaler_form, map_form))
        foreign = read_foreign(sources, replace(TRUST, use_pooling=True))
        assert foreign.architecture == ("custom" if model_form in PROGRAMS else architecture)
        assert_same(unbuilt_bundle(foreign, SETTINGS, tmp_path / "v2.0"), module, fitted)
        done += 1
    assert done >= 3


@pytest.mark.parametrize("architecture", CLASS_OF)
def test_a_whole_module_and_its_scaler_come_through_the_child_process_into_a_bundle_that_verifies(
    classes: Any,
    folder_of_classes: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bars: dict[str, Bars],
    architecture: str,
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(folder_of_classes))
    module, fitted = network(classes, architecture), scaling("global", bars["AAPL"])
    sources = write_sources(tmp_path, module, "module", fitted, ("global", "nested"))
    bundle = import_bundle(read_foreign(sources, TRUST), SETTINGS, bars, "bokeh", tmp_path / "models/v2.0")
    assert_same(bundle, module, fitted, bars["AAPL"])
    loaded = load_bundle(tmp_path / "models/v2.0")
    asyncio.run(check_golden(Pipeline(loaded, local_stages(loaded, ModelConfig()))))
    assert len(loaded.golden) == 12
    assert set(loaded.golden.symbols) <= {"AAPL", "IBM", "MSFT"}
    came = loaded.metadata["imported"]
    assert came["imported_at"] == "2026-01-02T00:00:00+00:00"
    assert came["unpickled"] == ["model", "scaler"]
    assert {role: source["file"] for role, source in came["sources"].items()} == {
        "model": "best_model.pt",
        "scaler": "scalers.joblib",
        "asset_map": "asset_id_mapping.json",
        "feature_list": "features.json",
    }
    assert all(len(source["sha256"]) == 64 for source in came["sources"].values())
    assert f"upstream_nets.{CLASS_OF[architecture]}" in came["converted"]["model"]
    assert "StandardScaler under 'global'" in came["converted"]["scaler"]


def test_a_state_dict_with_a_scaler_in_json_needs_no_trust(classes: Any, tmp_path: Path) -> None:
    module, fitted = network(classes, "lstm_attention"), scaling("json")
    sources = write_sources(tmp_path, module, "model_state_dict _orig_mod.", fitted, ("json", "flat"))
    foreign = read_foreign(sources, Reading())
    assert foreign.origin["unpickled"] == []
    assert_same(unbuilt_bundle(foreign, SETTINGS, tmp_path / "v2.0"), module, fitted)


def test_the_classes_of_a_module_may_lie_in_the_folder_where_the_command_is_run(
    classes: Any, folder_of_classes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(folder_of_classes)
    sources = write_sources(tmp_path, network(classes, "mlp"), "module", scaling("json"), ("json", "flat"))
    assert read_foreign(sources, TRUST).architecture == "mlp"


# What the weights say.


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("architecture", "sizes", "expected"),
    [
        (
            "mlp",
            {"hidden": (9, 5, 4), "e": 2, "length": 7},
            {"hidden_dims": [9, 5, 4], "asset_embedding_dim": 2, "lookback_window": 7},
        ),
        (
            "lstm_attention",
            {"h": 202, "layers": 1, "a": 32, "e": 17, "norm": False},
            {
                "lstm_hidden_dim": 202,
                "lstm_num_layers": 1,
                "attention_dim": 32,
                "asset_embedding_dim": 17,
                "use_layer_norm": False,
            },
        ),
        ("gru_attention", {"h": 39, "a": 61, "layers": 3}, {"gru_hidden_dim": 39, "gru_num_layers": 3}),
        (
            "cnn_lstm",
            {"filters": (4, 6, 5), "kernels": (3, 4, 1), "a": 0, "pool": False},
            {
                "cnn_filters": [4, 6, 5],
                "cnn_kernel_sizes": [3, 4, 1],
                "lstm_hidden_dim": 10,
                "use_attention": False,
                "use_pooling": False,
            },
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:dropout option adds dropout")
def test_dimensions_are_those_of_the_tensors_whatever_the_checkpoint_says(
    classes: Any, tmp_path: Path, architecture: str, sizes: dict[str, Any], expected: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    module = getattr(classes, CLASS_OF[architecture])(**sizes)
    lies = {name: 77 for name in expected if name != "use_pooling"}
    sources = write_sources(tmp_path, module, "bare", scaling("json"), ("json", "flat"))
    checkpoint = {
        "model_state_dict": module.state_dict(),
        "config": {**lies, "model_type": "nonsense", "n_features": 5},
    }
    write(sources.model, saved(checkpoint))
    foreign = read_foreign(sources, Reading(use_pooling=False))
    assert foreign.architecture == architecture
    assert {name: foreign.dimensions[name] for name in expected} == expected
    assert foreign.dimensions["num_assets"] == 5
    said = "\n".join(foreign.differences)
    for name in [*lies, "n_features", "nonsense"]:
        assert name in said
    bundle = unbuilt_bundle(foreign, SETTINGS, tmp_path / "v2.0")
    assert bundle.metadata["known_differences"]["files"] == list(foreign.differences)


@pytest.mark.usefixtures("here")
def test_how_long_a_window_is_comes_from_the_option_the_checkpoint_or_the_default(classes: Any, tmp_path: Path) -> None:
    module = network(classes, "gru_attention")
    sources = write_sources(tmp_path, module, "bare", scaling("json"), ("json", "flat"))
    assert read_foreign(sources, Reading()).lookback_window == 24
    write(sources.model, saved({"model_state_dict": module.state_dict(), "config": {"lookback_window": 48}}))
    foreign = read_foreign(sources, Reading())
    assert foreign.lookback_window == 48
    assert "the checkpoint's word" in foreign.differences[0]
    foreign = read_foreign(sources, Reading(lookback_window=30))
    assert foreign.lookback_window == 30
    assert unbuilt_bundle(foreign, SETTINGS, tmp_path / "v2.0").config.bars_needed == TECH23.bars_needed(30)


@pytest.mark.usefixtures("here")
def test_pooling_is_seen_in_a_module_read_in_a_config_or_asked_for(classes: Any, tmp_path: Path) -> None:
    for pool, form in product([True, False], ["module", "dict model"]):
        module = network(classes, "cnn_lstm", pool=pool)
        sources = write_sources(tmp_path, module, form, scaling("json"), ("json", "flat"))
        assert read_foreign(sources, TRUST).dimensions["use_pooling"] is pool


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16])
def test_weights_of_another_precision_become_float32_and_it_is_said(
    classes: Any, tmp_path: Path, kind: torch.dtype
) -> None:
    module = network(classes, "gru_attention").to(kind)
    sources = write_sources(tmp_path, module, "bare", scaling("json"), ("json", "flat"))
    foreign = read_foreign(sources, Reading())
    assert {values.dtype for values in foreign.weights.values()} == {np.dtype(np.float32)}
    assert any("float32 now" in said for said in foreign.differences)


@pytest.mark.usefixtures("here")
def test_safetensors_are_a_state_dict_too(classes: Any, tmp_path: Path) -> None:
    from safetensors.torch import save  # noqa: PLC0415

    module, fitted = network(classes, "mlp"), scaling("json")
    sources = write_sources(tmp_path, module, "bare", fitted, ("json", "flat"))
    write(sources.model, save(module.state_dict()))
    assert_same(unbuilt_bundle(read_foreign(sources, Reading()), SETTINGS, tmp_path / "v2.0"), module, fitted)


# Settings and golden cases.


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("unit", HoldingUnit)
def test_golden_cases_hold_in_either_unit_and_with_an_exit(
    classes: Any, tmp_path: Path, bars: dict[str, Bars], unit: HoldingUnit
) -> None:
    fitted = scaling("json", bars["AAPL"])
    sources = write_sources(tmp_path, network(classes, "gru_attention"), "bare", fitted, ("json", "flat"))
    settings = replace(SETTINGS, thresholds=Thresholds(0.5, 0.4, 0.5, unit), bar_interval_s=86400.0)
    extra = {symbol: Bars(x.timestamp, {**x.columns, "rsi": x.columns["open"]}) for symbol, x in bars.items()}
    bundle = import_bundle(read_foreign(sources, Reading()), settings, extra, "mine.csv", tmp_path / "models/v2.0")
    asyncio.run(check_golden(Pipeline(bundle, local_stages(bundle, ModelConfig()))))
    assert bundle.golden.held.max() == 0.5
    assert bundle.metadata["golden_cases"]["source"] == "mine.csv"
    assert golden_notes(bundle) == []
    far = replace(bundle, golden=replace(bundle.golden, windows=bundle.golden.windows * 1000))
    [note] = golden_notes(far)
    assert "is not the scaler, or the features are not those" in note
    hourly = replace(bundle, config=bundle.config.model_copy(update={"bar_interval_s": 3600.0}))
    assert "86400 s apart, the bundle is for bars of 3600 s" in golden_notes(hourly)[0]
