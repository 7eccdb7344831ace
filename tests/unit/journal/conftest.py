from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.postgres import postgres


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    with postgres() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of an empty database of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'new' / 'journal.db'}"
    found: str = request.getfixturevalue("postgres_url")
    return found
