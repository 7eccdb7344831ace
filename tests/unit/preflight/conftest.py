from pathlib import Path

import pytest

from serve_app.parity import golden_requests as requests_of
from serve_app.pipeline import Pipeline
from serve_app.types import SignalRequest
from tests.factories import ROOT


@pytest.fixture(autouse=True)
def _in_the_clone(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folders that the shipped configurations name are relative to it."""
    monkeypatch.chdir(ROOT)
    return ROOT


@pytest.fixture(scope="session")
def golden_requests(pipeline: Pipeline) -> list[SignalRequest]:
    unit = pipeline.bundle.config.strategy.holding_unit
    return requests_of(pipeline.bundle.golden, pipeline.feature_set, unit)
