"""`signalgraph bundle export` and `runtimes`, as somebody would type them."""

import dataclasses
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deployments.cli import main
from serve_app.errors import GateFailed
from serve_app.model import load_bundle, write_bundle
from serve_app.training import export as exporting
from serve_app.types import Runtime
from tests.factories import PRODUCTION, on_other_features


def run(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some windows are enough to see the commands work; what the gate holds is shown elsewhere."""
    monkeypatch.setattr(exporting, "N_REPLAY", 40)


def test_an_export_says_what_it_has_passed_and_is_verified_and_served(tmp_path: Path) -> None:
    made = run(
        "bundle", "export", PRODUCTION, "--runtime", "torchscript", "--version", "v1.7", "--models-dir", tmp_path
    )
    assert made.exit_code == 0, made.output
    assert "torchscript fp32 on cpu decides like torch fp32 of v1.0" in made.output
    assert "52 windows (12 golden, the rest bokeh)" in made.output
    assert load_bundle(tmp_path / "v1.7").config.runtime is Runtime.TORCHSCRIPT
    assert "12 golden cases reproduced" in run("bundle", "verify", tmp_path / "v1.7").output
    again = run("bundle", "export", PRODUCTION, "--runtime", "onnx", "--version", "v1.7", "--models-dir", tmp_path)
    assert (again.exit_code, "is there already" in again.output) == (1, True)


def test_a_bundle_on_other_features_is_exported_on_drawn_windows(tmp_path: Path) -> None:
    source = on_other_features(load_bundle(PRODUCTION), tmp_path / "v4.0")
    assert "takes the `features` form only" in run("bundle", "verify", source.path).output
    made = run("bundle", "export", source.path, "--runtime", "onnx", "--version", "v4.1", "--models-dir", tmp_path)
    assert "the rest drawn from the normal distribution" in made.output


def test_the_table_of_runtimes_shows_each_that_passed_and_marks_the_one_that_serves() -> None:
    said = run("bundle", "runtimes", PRODUCTION).output.splitlines()
    assert said[0].startswith("onnx fp32 on cpu decides like torch fp32")
    assert said[1].split() == ["rows/s,", "batch", "of", "1", "8", "64", "256"]
    rows = {
        " ".join(line.split()[:-4]): [float(rate.replace(",", "")) for rate in line.split()[-4:]] for line in said[2:4]
    }
    assert list(rows) == ["torch fp32", "onnx fp32 *"]
    assert all(rate > 0 for rates in rows.values() for rate in rates)


def test_what_does_not_pass_or_cannot_be_made_is_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("bundle", "export", PRODUCTION, "--version", "v1.7", "--models-dir", tmp_path, "--runtime")
    assert "no BF16 kernels" in run(*words, "onnx", "--precision", "bf16").output
    nowhere = run(
        "bundle", "export", tmp_path / "v9.9", "--version", "v1.7", "--models-dir", tmp_path, "--runtime", "onnx"
    )
    assert "no bundle at" in nowhere.output

    def fails(*_: object) -> None:
        raise GateFailed("the export decides otherwise: IBM at noon")

    monkeypatch.setattr(exporting, "run_gate", fails)
    failed = run(*words, "torchscript")
    assert (failed.exit_code, "IBM at noon" in failed.output) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_one_program_is_served_and_not_exported(tmp_path: Path) -> None:
    bundle = load_bundle(PRODUCTION)
    alone = write_bundle(dataclasses.replace(bundle, path=tmp_path / "v1.0", weights={}, gates=()))
    assert "12 golden cases reproduced" in run("bundle", "verify", alone.path).output
    refused = run("bundle", "export", alone.path, "--runtime", "onnx", "--version", "v1.7", "--models-dir", tmp_path)
    assert "is a program for onnx without weights" in refused.output
