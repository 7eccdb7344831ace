"""The commands as typed; what is counted and named is in the tests of the library."""

import json
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result

from deployments.cli import main
from serve_app.pipeline import Pipeline
from serve_app.preprocess import TECH23
from serve_app.preprocess.feature_sets import FEATURE_SETS
from serve_app.types import Bars
from tests.factories import PRODUCTION
from tests.unit.audit.test_lookahead import PEEKS


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def audit(name: str, *options: str, data: str | Path = "bokeh") -> Result:
    return run("audit", name, "--data", str(data), "--bundle", str(PRODUCTION), *options)


@pytest.fixture
def csv(tmp_path: Path, bars: Mapping[str, Bars]) -> Path:
    """A user's own file of one symbol."""
    recent = bars["IBM"].tail(330)
    path = tmp_path / "bars.csv"
    pd.DataFrame({"timestamp": recent.timestamp, "symbol": "IBM", **recent.columns}).to_csv(path, index=False)
    return path


def spoil(monkeypatch: pytest.MonkeyPatch, name: str, memory: int) -> None:
    """Put a feature that declares another memory into this process."""
    definitions = dict(TECH23.definitions)
    definitions[name] = type(definitions[name])(memory, definitions[name].compute)
    monkeypatch.setitem(FEATURE_SETS, "tech23.v1", type(TECH23)("tech23.v1", definitions, TECH23.exogenous))


def test_parity_says_what_was_compared(csv: Path) -> None:
    result = audit("parity", "--stride", "7", data=csv)
    assert result.exit_code == 0
    assert "9 windows compared of IBM: 0 mismatches" in result.output
    assert "0 mismatches in probability" in result.output


def test_parity_leaves_out_what_the_bundle_does_not_know() -> None:
    result = audit("parity", "--stride", "500")
    assert "left out FB: model v1.0 was not trained on 'FB'" in result.output
    assert "of AAPL, GOOG, IBM, MSFT: 0 mismatches" in result.output


def test_a_mismatch_is_named_and_is_exit_code_1(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = Pipeline.row

    def other_volume(pipeline: Pipeline, request: object) -> object:
        made = row(pipeline, request)  # type: ignore[arg-type]
        assert made.bars is not None
        made.bars[-1, 4] *= 1.5
        return made

    monkeypatch.setattr(Pipeline, "row", other_volume)
    result = audit("parity", "--stride", "7", data=csv)
    assert result.exit_code == 1
    assert "IBM at 2012-12-07T00:00:00Z: feature volume in row 23, scaled, is " in result.output
    assert "Volume_SMA_20: differs in 9 windows" in result.output


def test_lookahead_says_what_was_tried(csv: Path) -> None:
    result = audit("lookahead", "--points", "5", data=csv)
    assert result.exit_code == 0
    assert "5 decision points of IBM, 20 disturbances of what comes later: 0 features changed, 0 act" in result.output


def test_a_feature_that_peeks_is_named_and_is_exit_code_1(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    definitions = {**TECH23.definitions, "close": PEEKS["close"]}
    peeking = type(TECH23)("tech23.v1", definitions, TECH23.exogenous)
    monkeypatch.setitem(FEATURE_SETS, "tech23.v1", peeking)
    result = audit("lookahead", "--points", "5", data=csv)
    assert result.exit_code == 1
    assert "close reads later bars: changed in 20 of 20 tries" in result.output


def test_warmup_prints_measured_next_to_declared(csv: Path) -> None:
    result = audit("warmup", data=csv)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()]
    assert ["OBV", "101", "101"] in lines
    assert lines[-1][-2:] == ["273", "273"]


def test_a_wrong_declaration_is_shown_and_is_exit_code_1(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "SMA_20", 21)
    result = audit("warmup", data=csv)
    assert result.exit_code == 1
    assert ["SMA_20", "21", "20", "disagree"] in [line.split() for line in result.output.splitlines()]


@pytest.mark.parametrize("name", ["parity", "lookahead", "warmup"])
def test_bad_data_is_a_message(name: str, tmp_path: Path, csv: Path) -> None:
    empty, columns, bad = tmp_path / "empty.csv", tmp_path / "columns.csv", tmp_path / "bad.csv"
    empty.write_text("")
    columns.write_text("timestamp,symbol,open\n2020-01-01,IBM,1\n")
    frame = pd.read_csv(csv)
    frame.loc[5, "low"] = -1.0
    frame.to_csv(bad, index=False)
    (tmp_path / "bars.parquet").write_bytes(b"no parquet")
    for data, message in {
        tmp_path / "none.csv": "no file of bars",
        tmp_path / "bars.parquet": "cannot be read",
        empty: "cannot be read",
        columns: "lacks high, low, close, volume",
        bad: "IBM: bars[5]",
    }.items():
        result = audit(name, data=data)
        assert (result.exit_code, result.output[:7]) == (1, "Error: "), result.output
        assert message in result.output
    assert "the data has no TSLA" in audit(name, "--symbols", "IBM,TSLA", data=csv).output


def test_symbols_are_separated_by_commas() -> None:
    assert "of GOOG, IBM: 0 mismatches" in audit("parity", "--symbols", "IBM, GOOG", "--stride", "900").output


def test_no_bundle_is_a_message(tmp_path: Path) -> None:
    result = run("doctor", str(tmp_path))
    assert result.exit_code == 1
    assert "no bundle at" in result.output


def test_the_doctor_gives_a_verdict_per_line_and_features_on_demand(csv: Path) -> None:
    result = run("doctor", str(PRODUCTION), "--data", str(csv), "--features")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert {line.split()[0] for line in lines[:10]} <= {"ok", "warn"}
    assert lines[10].startswith("feature")
    assert len(lines) == 10 + 1 + len(TECH23.features)


def test_the_doctor_answers_programs_in_json() -> None:
    result = run("doctor", str(PRODUCTION), "--json")
    document = json.loads(result.output)
    names = [check["name"] for check in document["diagnosis"]["checks"]]
    assert names == ["files", "scaler", "golden", "features", "output", "eval mode", "latency", "memory", "versions"]
    assert document["verdict"] in {"ok", "warn"}
    assert [summary["feature"] for summary in document["diagnosis"]["features"]] == list(TECH23.features)


def test_a_feature_set_that_a_bundle_was_not_built_on_is_refused(csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spoil(monkeypatch, "MACD_hist", 400)
    result = audit("parity", data=csv)
    assert (result.exit_code, "its features read 423" in result.output) == (1, True)
