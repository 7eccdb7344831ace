import pytest

from serve_app.parity import golden_requests as requests_of
from serve_app.pipeline import Pipeline
from serve_app.types import SignalRequest


@pytest.fixture(autouse=True)
def _where_configurations_are_read(in_the_clone: None) -> None:
    """All of them read one."""


@pytest.fixture(scope="session")
def golden_requests(pipeline: Pipeline) -> list[SignalRequest]:
    unit = pipeline.bundle.config.strategy.holding_unit
    return requests_of(pipeline.bundle.golden, pipeline.feature_set, unit)
