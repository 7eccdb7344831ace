"""The shipped bundles and the pipelines around them, once a session; property tests that repeat themselves exactly."""

import pytest
from hypothesis import settings

from serve_app.config import ModelConfig
from serve_app.model import Bundle, load_bundle
from serve_app.pipeline import Pipeline, local_stages
from tests.factories import CANDIDATE, PRODUCTION, ROOT
from tests.sizes import size

settings.register_profile(
    "unit", deadline=None, derandomize=True, database=None, max_examples=size("hypothesis examples")
)
settings.load_profile("unit")


@pytest.fixture
def in_the_clone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the shipped configurations find the folders that they name, and commands their defaults."""
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="session")
def bundle() -> Bundle:
    return load_bundle(PRODUCTION)


@pytest.fixture(scope="session")
def pipeline(bundle: Bundle) -> Pipeline:
    """Production, all in this process."""
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))


@pytest.fixture(scope="session")
def candidate() -> Pipeline:
    bundle = load_bundle(CANDIDATE)
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))
