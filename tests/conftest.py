"""What all tiers share."""

import pytest

from serve_app.training.data import load_bars
from serve_app.types import Bars


@pytest.fixture(scope="session")
def bars() -> dict[str, Bars]:
    """The built-in daily bars, by symbol."""
    return load_bars("bokeh")
