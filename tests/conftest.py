"""What all tiers share."""

from typing import Any

import pytest

from serve_app.training.data import load_bars
from serve_app.types import Bars
from tests.workers import OneGraphAtATime


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneGraphAtATime:
    """Let one worker start graphs, and the others run unit tests."""
    return OneGraphAtATime(config, log)


@pytest.fixture(scope="session")
def bars() -> dict[str, Bars]:
    """The built-in daily bars, by symbol."""
    return load_bars("bokeh")
