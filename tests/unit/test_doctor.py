import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from serve_app.config import ModelConfig
from serve_app.doctor import Check, Diagnosis, Verdict, examine
from serve_app.errors import BundleNotFound
from serve_app.model import Bundle, write_bundle
from serve_app.model.bundle import SCALER
from serve_app.model.predictors.network import TorchNetwork
from serve_app.model.stage import Model
from serve_app.preprocess import TECH23
from serve_app.types import Bars
from tests.factories import CANDIDATE, PRODUCTION, in_torch, with_columns, with_value

CHECKS = ("files", "scaler", "golden", "features", "output", "eval mode", "latency", "memory", "versions")
OF_THE_BUNDLE = CHECKS[:6]
"""What does not depend on the machine."""


def verdicts(diagnosis: Diagnosis) -> dict[str, str]:
    return {check.name: str(check.verdict) for check in diagnosis.checks}


def check(diagnosis: Diagnosis, name: str) -> Check:
    (found,) = [check for check in diagnosis.checks if check.name == name]
    return found


def written(bundle: Bundle, folder: Path, **changes: Any) -> Path:
    return write_bundle(replace(bundle, path=folder / "v9.9", **changes)).path


def with_scaler(bundle: Bundle, folder: Path, **parameters: Mapping[str, float]) -> Path:
    """A bundle whose scaler has other parameters for some features."""
    lists: dict[str, Sequence[float]] = {}
    for parameter, values in parameters.items():
        lists[parameter] = list(getattr(bundle.scaler, parameter))
        for feature, value in values.items():
            lists[parameter][TECH23.features.index(feature)] = value  # type: ignore[index]
    return written(bundle, folder, scaler=bundle.scaler.model_copy(update=lists))


@pytest.mark.parametrize("path", [PRODUCTION, CANDIDATE])
@pytest.mark.parametrize("with_data", [False, True])
def test_the_shipped_bundles_are_healthy(path: Path, with_data: bool, bars: dict[str, Bars]) -> None:
    diagnosis = examine(path, bars if with_data else None)
    assert tuple(verdicts(diagnosis)) == ((*CHECKS[:3], "interval", *CHECKS[3:]) if with_data else CHECKS)
    assert {name: verdicts(diagnosis)[name] for name in OF_THE_BUNDLE} == dict.fromkeys(OF_THE_BUNDLE, "ok")
    assert diagnosis.verdict is not Verdict.FAIL
    n = 256 if with_data else 12
    assert check(diagnosis, "features").finding.startswith(f"{n} windows of the {'data' if with_data else 'golden'}")


def test_what_is_ok_needs_no_advice_and_what_is_not_has_some(tmp_path: Path, bundle: Bundle) -> None:
    for path in (PRODUCTION, with_scaler(bundle, tmp_path, scale={"OBV": 0.0})):
        for found in examine(path).checks:
            assert bool(found.advice) == (found.verdict is not Verdict.OK), found


def test_a_feature_summary_stands_next_to_its_training_reference(bundle: Bundle) -> None:
    summary = {s.feature: s for s in examine(PRODUCTION).features}["RSI_14"]
    i = TECH23.features.index("RSI_14")
    assert (summary.training_mean, summary.training_scale) == (bundle.scaler.mean[i], bundle.scaler.scale[i])
    windows = bundle.golden.windows[:, :, i].astype(float)
    assert summary.scaled_mean == pytest.approx(windows.mean(), abs=1e-5)
    assert summary.scaled_std == pytest.approx(windows.std(), abs=1e-5)
    assert summary.mean == pytest.approx(windows.mean() * bundle.scaler.scale[i] + bundle.scaler.mean[i], rel=1e-5)
    assert 0 < summary.minimum < summary.mean < summary.maximum < 100


def test_where_no_bundle_is_nothing_is_examined(tmp_path: Path) -> None:
    with pytest.raises(BundleNotFound):
        examine(tmp_path)


def test_a_changed_file_is_the_only_thing_that_is_said_about_a_bundle(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    content = bytearray((path / SCALER).read_bytes())
    content[10] ^= 1
    (path / SCALER).write_bytes(bytes(content))
    diagnosis = examine(path)
    assert tuple(verdicts(diagnosis)) == ("files", "memory", "versions")
    assert SCALER in check(diagnosis, "files").finding
    assert (diagnosis.verdict, diagnosis.digest) == (Verdict.FAIL, None)


# Scalers.


@pytest.mark.parametrize(("parameter", "value"), [("scale", 0.0), ("scale", -1.0), ("scale", 1e-320)])
def test_a_scale_that_is_not_above_zero_is_named(bundle: Bundle, tmp_path: Path, parameter: str, value: float) -> None:
    diagnosis = examine(with_scaler(bundle, tmp_path, **{parameter: {"OBV": value}}))
    said = check(diagnosis, "scaler")
    assert "OBV" in said.finding
    assert said.verdict is (Verdict.FAIL if value <= 0 else Verdict.WARN)
    assert verdicts(diagnosis)["golden"] == "fail"
    assert diagnosis.verdict is Verdict.FAIL


def test_a_scale_of_zero_shows_in_every_line_that_it_spoils(bundle: Bundle, tmp_path: Path) -> None:
    diagnosis = examine(with_scaler(bundle, tmp_path, scale={"OBV": 0.0}))
    said = verdicts(diagnosis)
    assert {name for name in OF_THE_BUNDLE if said[name] == "fail"} >= {"scaler", "golden", "features", "output"}
    assert check(diagnosis, "features").finding.endswith("once scaled: OBV")


def test_a_scaler_that_makes_what_is_no_number_is_found_where_it_appears(bundle: Bundle, tmp_path: Path) -> None:
    # 0.5 is the sentiment of every bar: 0 / 0.
    nan_prone = with_scaler(bundle, tmp_path, scale={"sentiment_score_hourly_ffill": 0.0})
    diagnosis = examine(nan_prone)
    assert "sentiment_score_hourly_ffill" in check(diagnosis, "scaler").finding
    assert "sentiment_score_hourly_ffill" in check(diagnosis, "features").finding
    assert "12 of 12 windows give no finite probability" in check(diagnosis, "output").finding
    assert check(diagnosis, "latency").verdict is Verdict.FAIL


@pytest.mark.parametrize("parameter", ["mean", "scale"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_parameter_that_is_not_finite_is_refused(
    bundle: Bundle, tmp_path: Path, parameter: str, value: float
) -> None:
    diagnosis = examine(with_scaler(bundle, tmp_path, **{parameter: {"close": value}}))
    assert diagnosis.verdict is Verdict.FAIL
    finding = check(diagnosis, "scaler").finding
    assert re.fullmatch(r"not finite, or scale not above 0: close \(mean .*, scale .*\)", finding)


def test_a_scale_near_zero_is_named(bundle: Bundle, tmp_path: Path) -> None:
    said = check(examine(with_scaler(bundle, tmp_path, scale={"SMA_20": 1e-9, "OBV": 1e-3})), "scaler")
    assert said.verdict is Verdict.WARN
    assert "SMA_20 (1e-09), OBV (0.001)" in said.finding


def test_a_scaler_of_other_features_is_found(bundle: Bundle, tmp_path: Path) -> None:
    short = bundle.scaler.model_copy(update={"mean": bundle.scaler.mean[:-1], "scale": bundle.scaler.scale[:-1]})
    diagnosis = examine(written(bundle, tmp_path, scaler=short))
    assert "22 means and 22 scales for 23 features" in check(diagnosis, "scaler").finding
    assert verdicts(diagnosis)["golden"] == "fail"
    assert diagnosis.verdict is Verdict.FAIL


# Models.


def test_a_model_without_weights_is_called_constant(bundle: Bundle, tmp_path: Path, bars: dict[str, Bars]) -> None:
    zeroed = {name: np.zeros_like(values) for name, values in bundle.weights.items()}
    diagnosis = examine(written(in_torch(bundle), tmp_path, weights=zeroed), bars)
    said = check(diagnosis, "output")
    assert said.verdict is Verdict.FAIL
    assert "v1.0 looks like a constant model: probabilities of 268 windows from 0.5000 to 0.5000" in said.finding
    assert verdicts(diagnosis)["golden"] == "fail"
    assert verdicts(diagnosis)["features"] == verdicts(diagnosis)["scaler"] == "ok"


def test_a_model_that_hardly_moves_is_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    last = max(name for name in bundle.weights if name.startswith("classifier") and name.endswith("weight"))
    faint = {**bundle.weights, last: bundle.weights[last] * np.float32(1e-4)}
    said = check(examine(written(in_torch(bundle), tmp_path, weights=faint)), "output")
    assert said.verdict is Verdict.WARN
    assert "constant model" in said.finding


def test_weights_of_another_architecture_are_found(bundle: Bundle, tmp_path: Path) -> None:
    some = dict(list(bundle.weights.items())[:-1])
    diagnosis = examine(written(in_torch(bundle), tmp_path, weights=some))
    assert tuple(verdicts(diagnosis)) == ("files", "scaler", "model", "memory", "versions")
    assert "Missing key" in check(diagnosis, "model").finding


def test_features_of_another_release_are_found(bundle: Bundle, tmp_path: Path) -> None:
    other = bundle.config.model_copy(update={"feature_set": "tech99.v1"})
    assert "tech99.v1" in check(examine(written(bundle, tmp_path, config=other)), "model").finding


def network_of(model: Model) -> nn.Module:
    predictor = model._predictor
    assert isinstance(predictor, TorchNetwork)
    return predictor._module


def test_a_network_in_training_mode_is_found(bundle: Bundle, tmp_path: Path) -> None:
    def in_training_mode(bundle: Bundle, config: ModelConfig) -> Model:
        model = Model(bundle, config)
        network_of(model).train()
        return model

    diagnosis = examine(written(in_torch(bundle), tmp_path), build_model=in_training_mode)
    said = check(diagnosis, "eval mode")
    assert said.verdict is Verdict.FAIL
    assert "in training mode, dropout is active; the same input twice gives different outputs" in said.finding
    assert verdicts(diagnosis)["golden"] == "fail"


def test_dropout_in_one_part_of_the_network_is_found(bundle: Bundle, tmp_path: Path) -> None:
    def forgotten(bundle: Bundle, config: ModelConfig) -> Model:
        model = Model(bundle, config)
        list(network_of(model).modules())[-2].train()
        return model

    diagnosis = examine(written(in_torch(bundle), tmp_path), build_model=forgotten)
    assert check(diagnosis, "eval mode").verdict is Verdict.FAIL


# Data.


def test_data_in_another_unit_is_named(bars: dict[str, Bars]) -> None:
    prices = {name: bars["IBM"].columns[name] for name in ("open", "high", "low", "close")}
    cents = with_columns(bars["IBM"], **{name: values * 100 for name, values in prices.items()})
    said = check(examine(PRODUCTION, {"IBM": cents}), "features")
    assert said.verdict is Verdict.WARN
    assert "in 64 windows of the data, more than 5 training deviations" in said.finding
    assert "SMA_10 (100%)" in said.finding
    assert "RSI_14" not in said.finding


def test_bars_of_another_interval_are_named(bars: dict[str, Bars]) -> None:
    hours = np.datetime64("2012-01-02T00:00:00", "us") + np.arange(400) * np.timedelta64(1, "h")
    said = check(examine(PRODUCTION, {"IBM": replace(bars["IBM"].tail(400), timestamp=hours)}), "interval")
    assert said.verdict is Verdict.WARN
    assert "bars of the data are 3600 s apart, the bundle is for bars of 86400 s" in said.finding


def test_data_that_serving_refuses_is_named_and_the_bundle_examined_all_the_same(bars: dict[str, Bars]) -> None:
    diagnosis = examine(PRODUCTION, {"IBM": with_value(bars["IBM"], "volume", 3, np.nan)})
    said = check(diagnosis, "features")
    assert said.verdict is Verdict.FAIL
    assert "serving refuses the data: IBM: bars[3].volume" in said.finding
    assert verdicts(diagnosis)["eval mode"] == "ok"


def test_data_of_unknown_symbols_only_is_named(bars: dict[str, Bars]) -> None:
    said = check(examine(PRODUCTION, {"FB": bars["FB"]}), "features")
    assert (said.verdict, "not trained on 'FB'" in said.finding) == (Verdict.FAIL, True)


# The machine.


def test_latency_is_given_for_one_row_and_for_a_full_batch() -> None:
    finding = check(examine(PRODUCTION), "latency").finding
    assert finding.startswith("batch of 1: preprocess ")
    assert "; batch of 64: preprocess " in finding
    assert finding.count("model") == finding.count("strategy") == 2


def test_versions_and_memory_name_what_they_count() -> None:
    diagnosis = examine(PRODUCTION)
    versions, memory = check(diagnosis, "versions").finding, check(diagnosis, "memory").finding
    assert all(name in versions for name in ("python 3.", "torch 2.", "numpy 2.", "ray 2."))
    assert "weights 0.05 MiB" in memory
    assert "this process" in memory
