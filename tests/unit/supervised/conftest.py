"""Files as training code elsewhere leaves them, as a configuration names them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from torch import nn

from serve_app.documentation import bars_as_columns
from serve_app.preprocess import TECH23
from serve_app.types import Bars, FloatArray
from tests.unit.model.conftest import classes, folder_of_classes
from tests.unit.model.foreign.files import Scaling, write_sources

__all__ = ["classes", "folder_of_classes"]

Configure = Callable[..., dict[str, Any]]


@pytest.fixture
def configure(tmp_path: Path) -> Configure:
    """Write a model and what belongs to it, and return the configuration that names the files."""

    def write(module: nn.Module, form: str, fitted: Scaling, **settings: Any) -> dict[str, Any]:
        sources = write_sources(tmp_path / "files", module, form, fitted, ("global", "nested"))
        return {
            "model_path": str(sources.model),
            "scaler_path": str(sources.scaler),
            "asset_id_map_path": str(sources.asset_map),
            "feature_list": list(TECH23.features),
            "trust_pickle": True,
            **settings,
        }

    return write


def frame_of(features: FloatArray) -> pd.DataFrame:
    """A frame of features, without times."""
    return pd.DataFrame(features, columns=list(TECH23.features))


def bars_frame(bars: Bars) -> pd.DataFrame:
    """A frame of bars, with a column of times."""
    return pd.DataFrame(bars_as_columns(bars))
