"""Frames of features → scaled windows, as serving scales them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from serve_app.errors import BundleError, ConfigError, UnusableRequest
from serve_app.model.bundle import SCALER
from serve_app.model.foreign.artefacts import read_artefacts
from serve_app.model.foreign.scalers import ScalerNumbers, check_scaler, scaler_numbers
from serve_app.model.foreign.texts import parse_json, read_feature_list
from serve_app.model.foreign.unsaid import USUAL_LOOKBACK
from serve_app.preprocess import FeatureSet, HistoryRules, Scaler, fill_forward, names_only, recent_rows
from serve_app.supervised.frames import feature_rows
from serve_app.supervised.loading import MissingFile, in_place_of_options, read_json, rows_of_window
from serve_app.types import Float32Array, FloatArray

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
    never backward. Raises ValueError (InvalidInput, or MissingSetting for no number of rows), or BundleError for a
    scaler of other features, or of the same in another order.
    """
    names = read_feature_list(list(feature_list))
    window = _window(raw_data, names_only(names), rows_of_window(lookback_window))
    return _scaled(window, _scaler(_numbers(scaler), names))


def _numbers(scaler: Any) -> ScalerNumbers:
    if isinstance(scaler, Scaler):
        return ScalerNumbers(mean=scaler.mean.tolist(), scale=scaler.scale.tolist(), form="Scaler")
    with warnings.catch_warnings():  # sklearn warns of arrays given to what was fitted on a frame; names are compared
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        return scaler_numbers(scaler)


def _scaler(given: ScalerNumbers, names: Sequence[str]) -> Scaler:
    if given.names is not None and given.names != list(names) and sorted(given.names) == sorted(names):
        raise BundleError(
            f"the scaler was fitted on the same features in another order; feature_list must be that of training:"
            f" {', '.join(given.names)}"
        )
    checked = check_scaler(given, len(names))
    return Scaler(np.array(checked.mean), np.array(checked.scale))


def _window(frame: "pd.DataFrame", names: FeatureSet, lookback_window: int) -> FloatArray:
    """Return the checked last rows (L, F), unscaled. Raises InvalidInput."""
    try:
        return recent_rows(feature_rows(frame, names, lookback_window), HistoryRules(names, lookback_window, {}))
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
        self.lookback_window = rows_of_window(self.config.get("lookback_window"))
        self.nan_strategy = self.config.get("nan_handling", NAN_HANDLING)
        if self.nan_strategy != NAN_HANDLING:
            raise ConfigError(
                f"nan_handling {self.nan_strategy!r} would change how many rows a window has, or read later rows; only"
                f" {NAN_HANDLING!r} is served"
            )
        self.scaler = _scaler(self._read_scaler(path.with_name(SCALER)), self.feature_list)
        self._names = names_only(self.feature_list)

    def _read_scaler(self, of_bundle: Path) -> ScalerNumbers:
        given = self.config.get("scaler_path")
        path = Path(given) if given else of_bundle
        if not path.is_file():
            raise MissingFile(f"Scaler file not found: {path}")
        content = path.read_bytes()
        if content.lstrip()[:1] == b"{":
            return scaler_numbers(parse_json(content, "the scaler"))
        try:
            read = read_artefacts(None, content, self.config.get("trust_pickle") is True)[0].scaler
        except BundleError as error:
            raise in_place_of_options(error) from error
        assert read is not None  # noqa: S101  a file was given
        return read

    def validate_input(self, df: "pd.DataFrame") -> bool:
        """Return True for a frame whose last rows can be preprocessed. Raises ValueError (InvalidInput)."""
        _window(df, self._names, self.lookback_window)
        return True

    def preprocess(self, df: "pd.DataFrame") -> Float32Array:
        """Return the scaled window (1, L, F). Raises ValueError (InvalidInput)."""
        return _scaled(_window(df, self._names, self.lookback_window), self.scaler)
