"""`signalgraph bundle import`, as somebody would type it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from sklearn.preprocessing import StandardScaler

from deployments.cli import main
from serve_app.model import Bundle, load_bundle
from serve_app.model.bundle import MANIFEST
from tests.factories import FILES, PRODUCTION
from tests.unit.model.foreign.files import Trap
from tests.unit.model.test_bundle import manifest_again

Run = Callable[..., Result]


@pytest.fixture
def checkpoint(bundle: Bundle, tmp_path: Path) -> Path:
    """The shipped model as training code elsewhere would have left it: all in one file, with a real scaler in it."""
    scaler = StandardScaler().fit(np.random.default_rng(0).normal(size=(9, 23)))
    scaler.mean_, scaler.scale_ = np.array(bundle.scaler.mean), np.array(bundle.scaler.scale)
    content = {
        "epoch": 7,
        "model_state_dict": {f"_orig_mod.{name}": torch.tensor(values) for name, values in bundle.weights.items()},
        "metrics": {"f1": np.float64(0.31)},
        "config": {"model_type": "lstm", "lstm_hidden_dim": 999, "features": list(bundle.config.feature_list)},
        "scalers": {"global": scaler},
        "asset_id_map": dict(bundle.symbol_to_id),
    }
    torch.save(content, tmp_path / "best_model.pt")
    return tmp_path / "best_model.pt"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def type_in(*words: Any) -> Result:
        command = ["bundle", "import", "--version", "v2.0", "--models-dir", tmp_path / "models", *words]
        return CliRunner().invoke(main, [str(word) for word in command])

    return type_in


def test_a_checkpoint_with_everything_in_it_becomes_a_bundle_that_verifies(
    checkpoint: Path, run: Run, bundle: Bundle, tmp_path: Path
) -> None:
    result = run(
        *("--model", checkpoint, "--trust-pickle", "--signal-threshold", "0.4", "--holding-unit", "bars"),
        *("--bar-interval-s", "86400", "--max-holding-period", "5", "--horizon", "5"),
    )
    assert result.exit_code == 0, result.output
    for said in (
        "12 golden cases; buys from 0.4, holds for at most 5 bars, bars of 86400 s",
        "scaler: StandardScaler under 'global', from the checkpoint",
        "note: the checkpoint's config says lstm_hidden_dim is 999; 32 is used, as the weights say",
        "WARNING: the features have the names and the order of tech23.v1",
        "OBV: summed over 100 bars here; elsewhere cumulative",
    ):
        assert said in result.output
    imported = load_bundle(tmp_path / "models/v2.0")
    assert imported.version == "v2.0"
    assert imported.scaler == bundle.scaler
    assert imported.config.strategy.signal_threshold == 0.4
    assert imported.metadata["performance_metrics"] == {"f1": 0.31}
    assert imported.metadata["hyperparameters"]["lstm_hidden_dim"] == 999
    for name, values in bundle.weights.items():
        assert np.array_equal(imported.weights[name], values)
    verified = CliRunner().invoke(main, ["bundle", "verify", str(tmp_path / "models/v2.0")])
    assert "12 golden cases reproduced" in verified.output
    again = run("--model", checkpoint, "--trust-pickle")
    assert again.exit_code == 1
    assert "is there already" in again.output


def test_what_the_checkpoint_lacks_comes_from_files(bundle: Bundle, run: Run, tmp_path: Path) -> None:
    torch.save({name: torch.tensor(values) for name, values in bundle.weights.items()}, tmp_path / "model.pt")
    result = run(
        *("--model", tmp_path / "model.pt", "--scaler", PRODUCTION / "scaler.json"),
        *("--asset-map", PRODUCTION / "asset_id_mapping.json", "--feature-list", PRODUCTION / "config.json"),
        *("--signal-threshold", "0.4", "--lookback", "24"),
    )
    assert result.exit_code == 0, result.output
    imported = load_bundle(tmp_path / "models/v2.0")
    assert imported.config.feature_list == bundle.config.feature_list
    assert imported.symbol_to_id == bundle.symbol_to_id


def test_what_must_be_unpickled_is_refused_and_leaves_nothing(checkpoint: Path, run: Run, tmp_path: Path) -> None:
    result = run("--model", checkpoint)
    assert result.exit_code == 1
    assert "StandardScaler" in result.output
    assert "--trust-pickle" in result.output
    assert not (tmp_path / "models").exists()


def test_a_scaler_that_is_a_trap_does_not_go_off(checkpoint: Path, run: Run, tmp_path: Path) -> None:
    joblib.dump(Trap(tmp_path / "it-ran"), tmp_path / "scalers.joblib")
    result = run("--model", checkpoint, "--scaler", tmp_path / "scalers.joblib")
    assert result.exit_code == 1
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("dump", [torch.save, joblib.dump])
@pytest.mark.parametrize("command", ["bundle verify", "doctor"])
def test_no_command_unpickles_what_stands_in_a_bundle(
    tmp_path: Path, name: str, dump: Callable[..., Any], command: str
) -> None:
    folder = Path(shutil.copytree(PRODUCTION, tmp_path / "v1.0"))
    dump(Trap(tmp_path / "it-ran"), folder / name)
    manifest_again(folder)
    result = CliRunner().invoke(main, [*command.split(), str(folder)])
    assert result.exit_code == 1
    assert not (tmp_path / "it-ran").exists()
    assert json.loads((folder / MANIFEST).read_bytes())["format_version"] == 1


def test_the_defaults_are_shown_and_are_the_usual_ones() -> None:
    said = " ".join(CliRunner().invoke(main, ["bundle", "import", "--help"], terminal_width=200).output.split())
    for shown in (
        "Buy from this probability on. [default: 0.7",
        "Sell after this long. [default: 8.0",
        "[default: hours]",
    ):
        assert shown in said
    for shown in ("[default: 3600.0", "[default: 0.05", "[default: 0.02", "[default: bokeh]"):
        assert shown in said
