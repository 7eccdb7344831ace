"""Frames of features → scaled windows, as serving scales them."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve_app.errors import BundleError, ConfigError, UnusableRequest
from serve_app.model.bundle import SCALER
from serve_app.model.foreign.artefacts import TRUST, read_artefacts
from serve_app.model.foreign.scalers import check_scaler, scaler_numbers
from serve_app.model.foreign.texts import parse_json, read_feature_list
from serve_app.model.foreign.unsaid import USUAL_LOOKBACK
from serve_app.preprocess import FeatureSet, HistoryRules, Scaler, fill_forward, names_only, recent_rows
from serve_app.supervised.frames import numbers
from serve_app.supervised.loading import TRUST_HERE, MissingFile, MissingSetting, read_json
from serve_app.types import FeatureRows, Float32Array, FloatArray

if TYPE_CHECKING:
    import pandas as pd

NAN_HANDLING = "ffill"


class InvalidInput(UnusableRequest, ValueError):
    """A frame cannot be preprocessed; the message says why."""


def preprocess_for_inference(
    raw_data: "pd.DataFrame", feature_list: Sequence[str], scaler: Any, lookback_window: int = USUAL_LOOKBACK
) -> Float32Array:
    """Return the scaled window (1, L, F) of a frame's last rows.

    `scaler` is a fitted StandardScaler or RobustScaler, or one of `serve_app.preprocess`. Gaps are filled forward, and
    never backward. Raises InvalidInput, or BundleError for a scaler of other features.
    """
    names = names_only(read_feature_list(list(feature_list)))
    return _scaled(_window(raw_data, names, lookback_window), _scaler(scaler, len(names.features)))


def _scaler(scaler: Any, n_features: int) -> Scaler:
    if isinstance(scaler, Scaler):
        return scaler
    checked = check_scaler(scaler_numbers(scaler), n_features)
    return Scaler(np.array(checked.mean), np.array(checked.scale))


def _window(frame: "pd.DataFrame", names: FeatureSet, lookback_window: int) -> FloatArray:
    """Return the checked last rows (L, F), unscaled. Raises InvalidInput."""
    missing = [name for name in names.features if name not in frame.columns]
    if missing:
        raise InvalidInput(f"Missing features: {', '.join(missing)}", missing=missing)
    try:
        rows = FeatureRows(names.features, numbers(frame, names.features))
        return recent_rows(rows, HistoryRules(names, lookback_window, {}))
    except UnusableRequest as error:
        raise InvalidInput(str(error), **error.detail) from error


def _scaled(window: FloatArray, scaler: Scaler) -> Float32Array:
    return scaler.transform(fill_forward(window[None]))


class ProductionPreprocessor:
    """Preprocessing from a configuration file: `feature_list`, `lookback_window`, `scaler_path`, `nan_handling`.

    The `config.json` of a bundle is one, too; its scaler lies beside it. `trust_pickle` is needed for a joblib file.
    Raises FileNotFoundError (MissingFile), ValueError (MissingSetting), ConfigError, or BundleError for a scaler that
    does not fit.
    """

    def __init__(self, config_path: str) -> None:
        path = Path(config_path)
        self.config = read_json(path)
        self.feature_list = read_feature_list(self.config.get("feature_list"))
        self.lookback_window = self._lookback()
        self.nan_strategy = self.config.get("nan_handling", NAN_HANDLING)
        if self.nan_strategy != NAN_HANDLING:
            raise ConfigError(
                f"nan_handling {self.nan_strategy!r} would change how many rows a window has, or read later rows; only"
                f" {NAN_HANDLING!r} is served"
            )
        self.scaler = _scaler(self._read_scaler(path.with_name(SCALER)), len(self.feature_list))
        self._names = names_only(self.feature_list)

    def _lookback(self) -> int:
        value = self.config.get("lookback_window")
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise MissingSetting(f"lookback_window is {value!r}; it must be a whole number of rows, at least 1")
        return value

    def _read_scaler(self, of_bundle: Path) -> Any:
        given = self.config.get("scaler_path")
        path = Path(given) if given else of_bundle
        if not path.is_file():
            raise MissingFile(f"Scaler file not found: {path}")
        content = path.read_bytes()
        if content.lstrip()[:1] == b"{":
            return parse_json(content, "the scaler")
        try:
            numbers_of = read_artefacts(None, content, self.config.get("trust_pickle") is True)[0].scaler
        except BundleError as error:
            raise type(error)(str(error).replace(TRUST, TRUST_HERE)) from error
        assert numbers_of is not None  # noqa: S101  a file was given
        return {"mean": numbers_of.mean, "scale": numbers_of.scale}

    def validate_input(self, df: "pd.DataFrame") -> bool:
        """Return True for a frame whose last rows can be preprocessed. Raises ValueError (InvalidInput)."""
        _window(df, self._names, self.lookback_window)
        return True

    def preprocess(self, df: "pd.DataFrame") -> Float32Array:
        """Return the scaled window (1, L, F). Raises ValueError (InvalidInput)."""
        return _scaled(_window(df, self._names, self.lookback_window), self.scaler)
