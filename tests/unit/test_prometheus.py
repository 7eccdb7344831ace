"""The alert rules, in Prometheus's own words."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from serve_app.errors import SERVER_CODES
from tests.programs import needed

FOLDER = Path(__file__).parents[2] / "configs/prometheus"
NEVER_ANSWERED = {"config", "bundle", "registry", "repository"}
"""Errors of commands and of the start, which no request meets."""


@pytest.mark.parametrize(
    "command", [("check", "config", "prometheus.yaml"), ("test", "rules", "alerts_test.yaml")], ids=" ".join
)
def test_promtool_finds_nothing_wrong(command: tuple[str, ...]) -> None:
    said = subprocess.run([needed("promtool"), *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def test_every_rule_has_a_test() -> None:
    rules = yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"][0]["rules"]
    tested = {one["alertname"] for test in yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())["tests"]
              for one in test["alert_rule_test"] if one["exp_alerts"]}  # fmt: skip
    assert {rule["alert"] for rule in rules} == tested


def test_failures_are_those_that_the_service_counts_as_its_own() -> None:
    (pattern,) = set(re.findall(r'code=~"([^"]+)"', (FOLDER / "alerts.yaml").read_text()))
    assert {code for code in SERVER_CODES if re.fullmatch(pattern, code)} == SERVER_CODES - NEVER_ANSWERED
