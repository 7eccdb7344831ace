"""The demo: one command, 300 decisions about real bars over real HTTP, and nothing left behind."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from serve_app.config import AppConfig
from serve_app.router import Assignment
from tests.e2e.conftest import ROOT
from tests.waiting import free_port

ROW = re.compile(
    r"^(\d{4}-\d\d-\d\d)  (\w+) +(production|candidate) +(v\d\.\d) +(0\.\d{4})  (BUY|SELL|HOLD)", re.MULTILINE
)


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    home = tmp_path_factory.mktemp("home")
    demo = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "demo", "--exit", "--port", str(free_port())],
        cwd=ROOT,
        env={**os.environ, "HOME": str(home), "SIGNALGRAPH_STATE_DIR": str(home / "state")},
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
    )
    assert demo.returncode == 0, demo.stdout + demo.stderr
    return demo.stdout


def test_300_decisions_are_shown_each_by_the_variant_of_its_symbol(said: str) -> None:
    rows = ROW.findall(said)
    assert len(rows) == 300
    assert {(variant, version) for _, _, variant, version, *_ in rows} == {
        ("production", "v1.0"),
        ("candidate", "v1.1"),
    }
    application = yaml.safe_load((ROOT / "configs/ab_test.yaml").read_text())["applications"][0]
    settings = AppConfig.model_validate(application["args"]).router.assignment
    assignment = Assignment(settings.candidate_share, settings.salt, settings.pins)
    assert all(variant == assignment.variant(symbol) for _, symbol, variant, *_ in rows)


def test_it_buys_and_sells(said: str) -> None:
    assert {action for *_, action in ROW.findall(said)} == {"BUY", "SELL", "HOLD"}


def test_each_bar_of_each_symbol_is_asked_about_once_oldest_first(said: str) -> None:
    rows = ROW.findall(said)
    for symbol in ("AAPL", "GOOG", "IBM", "MSFT"):
        dates = [date for date, asked, *_ in rows if asked == symbol]
        assert len(dates) == 75
        assert dates == sorted(set(dates))
        assert dates[-1] == "2013-03-01"


def test_the_symbol_that_no_model_saw_is_refused_and_nothing_is_left(said: str) -> None:
    assert "FB is refused, as it must be: 422 unknown_symbol" in said
    assert "300 decisions over HTTP, 0 abstentions" in said
    assert said.rstrip().endswith("stopped; nothing is left")


def test_the_requests_for_curl_are_written(said: str) -> None:
    assert "-d @.demo/MSFT.json" in said
    body = json.loads(Path(ROOT / ".demo" / "MSFT.json").read_text())
    assert body["symbol"] == "MSFT"
    assert len(body["bars"]["close"]) == 273
