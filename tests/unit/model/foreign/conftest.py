"""Reading in this process."""

import json

import pytest

from serve_app.model.foreign import convert
from serve_app.model.foreign.artefacts import Artefacts, read_artefacts
from serve_app.types import FloatArray


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the files in this process: the same code as in the child, without its seconds of imports."""

    def read(model: bytes, scaler: bytes | None, trust: bool, _: float) -> tuple[Artefacts, dict[str, FloatArray]]:
        artefacts, weights = read_artefacts(model, scaler, trust)
        crossed = Artefacts.model_validate_json(json.dumps(artefacts.model_dump(mode="json")))
        return crossed, {name: tensor.numpy() for name, tensor in weights.items()}

    monkeypatch.setattr(convert, "read_isolated", read)
