"""What must hold before the model in models/production may serve: `pytest`, here and in CI."""

import asyncio
from pathlib import Path

import pytest

from serve_app.audit import audit_parity, histories_of
from serve_app.config import ModelConfig
from serve_app.model import load_bundle
from serve_app.model.repository import LINK, Repository
from serve_app.parity import check_golden
from serve_app.pipeline import Pipeline, local_stages, rules_of
from serve_app.training.data import load_bars

MODELS = Path(__file__).resolve().parent / "models"


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The stages that serve, in this process. Loading verifies every file of the bundle."""
    bundle = load_bundle(MODELS / LINK)
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))


def test_production_is_the_bundle_that_was_promoted(pipeline: Pipeline) -> None:
    """The link leads to what the last line of the history says."""
    assert pipeline.bundle.digest == Repository(MODELS).history()[-1].digest


def test_the_golden_cases_are_reproduced(pipeline: Pipeline) -> None:
    """Bars → features → probability → action is what it was when the bundle was built."""
    asyncio.run(check_golden(pipeline))


def test_serving_computes_what_training_did(pipeline: Pipeline) -> None:
    """Every 25th window of the training data is what the full history gives, to the bit."""
    bundle = pipeline.bundle
    bars = load_bars(bundle.metadata["training_data_source"])
    report = asyncio.run(audit_parity(pipeline, histories_of(bundle, rules_of(bundle), bars), stride=25))
    assert report.ok, report.first
