"""Classes of elsewhere, and reading in this process."""

import importlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serve_app.model.foreign import convert
from serve_app.model.foreign.artefacts import Artefacts, read_artefacts
from serve_app.types import FloatArray
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


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the files in this process: the same code as in the child, without its seconds of imports."""

    def read(model: bytes, scaler: bytes | None, trust: bool, _: float) -> tuple[Artefacts, dict[str, FloatArray]]:
        artefacts, weights = read_artefacts(model, scaler, trust)
        crossed = Artefacts.model_validate_json(json.dumps(artefacts.model_dump(mode="json")))
        return crossed, {name: tensor.numpy() for name, tensor in weights.items()}

    monkeypatch.setattr(convert, "read_isolated", read)
