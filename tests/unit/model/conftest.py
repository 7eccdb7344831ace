"""Classes of elsewhere."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.model.foreign.files import CLASSES


@pytest.fixture(scope="module")
def folder_of_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "upstream_nets.py").write_text(CLASSES)
    return folder


@pytest.fixture(scope="module")
def classes(folder_of_classes: Path) -> Iterator[Any]:
    sys.path.insert(0, str(folder_of_classes))
    yield importlib.import_module("upstream_nets")
    sys.path.remove(str(folder_of_classes))
    del sys.modules["upstream_nets"]
