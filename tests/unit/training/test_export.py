"""An export that decides alike becomes a bundle; one that does not is refused with its cases and writes nothing."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from serve_app.config import ModelConfig
from serve_app.errors import BundleError, GateFailed
from serve_app.model import Bundle, load_bundle
from serve_app.model.exporters import export_network
from serve_app.model.predictors import build_predictor, chosen
from serve_app.parity import check_golden
from serve_app.pipeline import Pipeline, local_stages
from serve_app.training.export import ExportSettings, Replay, export_bundle, replay_of, run_gate
from serve_app.training.golden import DRAWN
from serve_app.types import Bars, Precision, Runtime
from tests.factories import CANDIDATE, PRODUCTION, in_torch
from tests.sizes import size

FP32 = Precision.FP32
NOW = datetime(2026, 1, 2, tzinfo=UTC)
NEEDS_BF16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no BF16")


def settings(runtime: Runtime, precision: Precision = FP32) -> ExportSettings:
    return ExportSettings("v3.0", runtime, precision, NOW)


def some(replay: Replay) -> Replay:
    step = -(-len(replay.requests) // size("replayed windows of a gate"))
    return replace(replay, requests=replay.requests[::step])


@pytest.fixture(scope="module")
def trained(bundle: Bundle) -> Bundle:
    return in_torch(bundle)


@pytest.fixture(scope="module")
def replay(trained: Bundle, bars: Mapping[str, Bars]) -> Replay:
    return some(replay_of(trained, bars, "bokeh"))


@pytest.mark.parametrize("path", [PRODUCTION, CANDIDATE])
def test_the_shipped_exports_pass_the_gate(path: Path, bars: Mapping[str, Bars]) -> None:
    bundle = load_bundle(path)
    replay = some(replay_of(bundle, bars, "bokeh"))
    export = build_predictor(bundle, Runtime.ONNX, FP32, threads=1)
    report = run_gate(bundle, export, settings(Runtime.ONNX), replay)
    assert report.max_probability_error < 1e-6
    assert report.flips_within_margin == 0
    [shipped] = bundle.gates
    assert (shipped.runtime, shipped.precision) == (bundle.config.runtime, bundle.config.precision)
    assert shipped.windows == 2012
    assert shipped.max_probability_error < 1e-6


@pytest.mark.parametrize("path", [PRODUCTION, CANDIDATE])
def test_an_export_whose_weights_are_off_by_one_percent_fails_with_the_cases_named(
    path: Path, bars: Mapping[str, Bars]
) -> None:
    bundle = load_bundle(path)
    replay = some(replay_of(bundle, bars, "bokeh"))
    weights = {name: values * np.float32(1.01) for name, values in bundle.weights.items()}
    sabotaged = {Runtime.ONNX: export_network(replace(bundle, weights=weights), Runtime.ONNX, FP32)}
    export = build_predictor(replace(bundle, programs=sabotaged), Runtime.ONNX, FP32, threads=1)
    with pytest.raises(GateFailed, match=r"onnx in fp32 does not pass the gate") as refusal:
        run_gate(bundle, export, settings(Runtime.ONNX), replay)
    said = str(refusal.value)
    assert said.count(" before, ") == 5
    assert any(symbol in said for symbol in bundle.symbol_to_id)
    assert f"of {12 + len(replay.requests)} windows" in said


def test_a_failed_export_writes_nothing(
    trained: Bundle, replay: Replay, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def off(bundle: Bundle, runtime: Runtime, precision: Precision) -> bytes:
        weights = {name: values * np.float32(1.01) for name, values in bundle.weights.items()}
        return export_network(replace(bundle, weights=weights), runtime, precision)

    monkeypatch.setattr("serve_app.training.export.export_network", off)
    with pytest.raises(GateFailed):
        export_bundle(trained, settings(Runtime.TORCHSCRIPT), replay, tmp_path / "v3.0")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("runtime", "precision"),
    [
        (Runtime.ONNX, FP32),
        (Runtime.ONNX, Precision.FP16),
        (Runtime.TORCHSCRIPT, FP32),
        pytest.param(Runtime.TORCHSCRIPT, Precision.BF16, marks=NEEDS_BF16),
        pytest.param(Runtime.TORCH, Precision.BF16, marks=NEEDS_BF16),
    ],
)
def test_an_export_becomes_a_bundle_that_is_served_as_it_was_exported(
    trained: Bundle, replay: Replay, tmp_path: Path, runtime: Runtime, precision: Precision
) -> None:
    written = export_bundle(trained, settings(runtime, precision), replay, tmp_path / "v3.0")
    bundle = load_bundle(tmp_path / "v3.0")
    assert bundle.digest == written.digest
    assert chosen(bundle, ModelConfig()) == (runtime, precision)
    [report] = bundle.gates
    assert (report.runtime, report.precision, report.device, report.replay) == (runtime, precision, "cpu", "bokeh")
    assert (report.golden_cases, report.windows) == (12, 12 + len(replay.requests))
    assert trained.digest in report.reference
    assert bundle.metadata["exported_from"] == {
        "version": "v1.0",
        "digest": trained.digest,
        "exported_at": "2026-01-02T00:00:00+00:00",
    }
    assert (bundle.metadata["model_version"], bundle.metadata["git_tag"]) == ("v3.0", "model-v3.0")
    assert bundle.metadata["performance_metrics"] == trained.metadata["performance_metrics"]
    asyncio.run(check_golden(Pipeline(bundle, local_stages(bundle, ModelConfig()))))


def test_exports_add_up_and_a_program_that_is_replaced_takes_its_report_along(
    trained: Bundle, replay: Replay, tmp_path: Path
) -> None:
    few = replace(replay, requests=replay.requests[:8])
    first = export_bundle(trained, settings(Runtime.TORCHSCRIPT), few, tmp_path / "a/v3.0")
    second = export_bundle(first, settings(Runtime.ONNX), few, tmp_path / "b/v3.0")
    third = export_bundle(second, settings(Runtime.ONNX, Precision.FP16), few, tmp_path / "c/v3.0")
    passed = [[(gate.runtime, gate.precision) for gate in one.gates] for one in (second, third)]
    script = (Runtime.TORCHSCRIPT, FP32)
    assert passed == [[script, (Runtime.ONNX, FP32)], [script, (Runtime.ONNX, Precision.FP16)]]


def test_a_replay_set_is_spread_over_all_symbols_or_drawn(trained: Bundle, bars: Mapping[str, Bars]) -> None:
    replay = replay_of(trained, bars, "bokeh")
    assert len(replay.requests) == 2000
    assert {request.symbol for request in replay.requests} == set(trained.symbol_to_id)
    with pytest.raises(BundleError, match=r"mine\.csv has no symbol of the asset map"):
        replay_of(trained, {}, "mine.csv")
    blind = trained.config.model_copy(update={"feature_set": None, "bars_needed": 0})
    assert replay_of(replace(trained, config=blind), {}, "bokeh").source == DRAWN
