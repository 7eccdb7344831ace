import pytest

from serve_app.audit import Histories, histories_of
from serve_app.pipeline import Pipeline, rules_of
from serve_app.types import Bars


@pytest.fixture(scope="session")
def histories(pipeline: Pipeline, bars: dict[str, Bars]) -> Histories:
    """All that the shipped bundles know."""
    return histories_of(pipeline.bundle, rules_of(pipeline.bundle), bars)


@pytest.fixture(scope="session")
def ibm(pipeline: Pipeline, bars: dict[str, Bars]) -> Histories:
    """A short history of one symbol."""
    return histories_of(pipeline.bundle, rules_of(pipeline.bundle), {"IBM": bars["IBM"].tail(420)})
