"""The strategy of older trading code: load, prepare, predict, act."""

import logging
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from serve_app.batches import WindowBatch
from serve_app.errors import ConfigError, InvalidPosition, ServeAppError, StageFailed
from serve_app.model import load_bundle
from serve_app.strategy import Strategy
from serve_app.supervised.in_process import InProcess
from serve_app.supervised.loading import load, load_sources, thresholds_of, warn_of_unread
from serve_app.types import Action, Position, PositionStatus

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from serve_app.model import Bundle
    from serve_app.preprocess import Scaler

HOUR = timedelta(hours=1)


class SupervisedNNStrategy:
    """One model and its rules, from a dict of settings. See the package for where it differs from what it stands for.

    Keys: `model_path`, `scaler_path`, `asset_id_map_path` (or `asset_id_map`, a dict), `feature_list`,
    `lookback_window` (24), `use_pooling` (of a cnn_lstm whose files do not say), or `bundle` in place of them all;
    `signal_threshold` (0.7), `exit_threshold` (none), `max_holding_period_hours` (8), `trust_pickle` (False),
    `tracking_uri`. What is named is loaded at once. The dict is kept, and its thresholds are those of every decision.
    Raises ConfigError for a threshold that is none, and as `load_dependencies`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self.latest_prediction_probabilities: float | None = None
        self.latest_true_label: Any = None
        self.latest_refusal: ServeAppError | None = None
        self._in_process: InProcess | None = None
        warn_of_unread(config)
        if not config.get("bundle"):
            thresholds_of(config)  # a bundle's own are needed to judge
        if config.get("bundle") or (config.get("model_path") and config.get("scaler_path")):
            self.load_dependencies()

    @property
    def model(self) -> Any:
        """The model stage; None until it is loaded."""
        return None if self._in_process is None else self._in_process.model

    @property
    def scaler(self) -> "Scaler | None":
        """The scaler; None until it is loaded."""
        return None if self._in_process is None else self._in_process.preprocess.scaler

    @property
    def asset_id_map(self) -> Mapping[str, int] | None:
        """Symbol → row of the embedding; None until it is loaded."""
        return None if self._in_process is None else self._in_process.bundle.symbol_to_id

    def load_dependencies(self) -> None:
        """Load the bundle, or model, scaler and asset map, that the configuration names.

        Raises ValueError (MissingSetting), FileNotFoundError (MissingFile), ConfigError, or BundleError when the files
        do not belong together, cannot be served, or need trust.
        """
        self._take(load(self.config), self.config)

    def load_dependencies_from_mlflow(self, run_id: str, artifact_path: str = "best_model") -> None:
        """Load the model of a run, with the scaler, the map and the feature list that lie beside it.

        Its parameter `lookback_window` takes the place of the configuration's; `signal_threshold` counts where the
        configuration has none. Raises RegistryError, and as `load_dependencies`.
        """
        from serve_app.model.mlflow_registry import fetch_run  # noqa: PLC0415

        with TemporaryDirectory(prefix="signalgraph-fetch-") as folder:
            files = fetch_run(run_id, artifact_path, Path(folder), self.config.get("tracking_uri"))
            if files.sources is None:
                assert files.bundle is not None  # noqa: S101  one of the two is there
                self._take(load_bundle(files.bundle), self.config)
                return
            filled = self._filled(files.params)
            self._take(load_sources(files.sources, filled), filled)
        self.config.update(filled)

    def _filled(self, params: Mapping[str, str]) -> dict[str, Any]:
        """Return the configuration with what a run says."""
        filled = dict(self.config)
        try:
            if "lookback_window" in params:
                filled["lookback_window"] = int(params["lookback_window"])
            if "signal_threshold" in params:
                filled.setdefault("signal_threshold", float(params["signal_threshold"]))
        except ValueError as error:
            raise ConfigError(f"a parameter of the run is no number: {error}") from error
        return filled

    def _take(self, bundle: "Bundle", config: Mapping[str, Any]) -> None:
        thresholds_of(config, bundle.config.strategy)
        self._in_process = InProcess.of(bundle)

    def _rules(self) -> Strategy:
        """Return the rules as the configuration has them now. Raises ConfigError."""
        if self._in_process is None:
            return Strategy(thresholds_of(self.config), HOUR)
        config = self._in_process.bundle.config
        return Strategy(thresholds_of(self.config, config.strategy), config.bar_interval)

    def prepare_input_sequence(
        self, historical_data: "pd.DataFrame", symbol: str | None = None
    ) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Return the scaled window (1, L, F) float32 of a frame's last rows, and the asset id (1,) int64.

        `(None, None)` for data that cannot be used; `latest_refusal` and the log say why.
        """
        self.latest_refusal = None
        try:
            windows = self._windows(historical_data, symbol)
        except ServeAppError as error:
            self.latest_refusal = error
            self.logger.warning("%s cannot be decided on: %s", symbol, error)
            return None, None
        return torch.from_numpy(windows.windows), torch.from_numpy(windows.asset_ids)

    def _loaded(self) -> InProcess:
        if self._in_process is None:
            raise StageFailed("no model is loaded; call load_dependencies")
        return self._in_process

    def _windows(self, frame: "pd.DataFrame", symbol: str | None) -> WindowBatch:
        loaded = self._loaded()
        return loaded.batch([loaded.row(symbol, frame)])

    def get_model_prediction(self, feature_tensor: Tensor, asset_id_tensor: Tensor | None = None) -> float:
        """Return the probability for one scaled window (1, L, F) and its asset id (1,).

        Raises StageFailed for anything that gives none: never 0.5.
        """
        loaded = self._loaded()
        if asset_id_tensor is None:
            raise StageFailed("the model needs an asset id; prepare_input_sequence gives it with the window")
        windows = _array(feature_tensor, "window", "fiu").astype(np.float32)
        ids = _array(asset_id_tensor, "asset id", "iu").astype(np.int64).reshape(-1)
        if len(ids) != 1:
            raise StageFailed(f"{len(ids)} asset ids; this predicts one window at a time, BatchInferenceEngine many")
        if int(ids[0]) not in loaded.bundle.symbol_to_id.values():
            raise StageFailed(f"asset id {ids[0]} is that of no symbol of the model")
        return self._probability(loaded.predict(WindowBatch(loaded.bundle.digest, windows, ids))[0])

    def _probability(self, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float | np.floating) or not 0 <= value <= 1:
            raise StageFailed(f"{value!r} is no probability")
        return float(value)

    def generate_trade_action(
        self, prediction_probability: float, current_position_status: str, time_in_position_hours: float = 0
    ) -> str:
        """Return BUY, SELL or HOLD, by the rules that serve. Any status but FLAT and LONG is held, with a warning.

        Raises StageFailed for what is no probability, InvalidPosition for what is no time.
        """
        probability = self._probability(prediction_probability)
        position = self._position(current_position_status, time_in_position_hours)
        if position is None:
            return Action.HOLD.value
        rules = self._rules()
        return rules.action(probability, position.status is PositionStatus.LONG, rules.held(position)).value

    def _position(self, status: Any, hours: Any) -> Position | None:
        if status not in list(PositionStatus):
            self.logger.warning("position status %r is neither FLAT nor LONG: it is held", status)
            return None
        if isinstance(hours, bool) or not isinstance(hours, int | float | np.number):
            raise InvalidPosition(f"time_in_position_hours is {hours!r}; it must be a number of hours")
        return Position(PositionStatus(status), float(hours))

    def on_bar_data(
        self,
        bar_data: Mapping[str, Any],
        historical_window_df: "pd.DataFrame",
        current_portfolio_status: Mapping[str, Any],
    ) -> str:
        """Return the action for a new bar. Whatever fails, the answer is the action that needs no model.

        `bar_data` has `symbol` and may have `true_label`; `current_portfolio_status` has `position_type` (FLAT) and
        `time_in_position_hours` (0).
        """
        self.latest_prediction_probabilities = self.latest_true_label = self.latest_refusal = None
        try:
            self.latest_true_label = bar_data.get("true_label")
            features, asset_id = self.prepare_input_sequence(historical_window_df, bar_data.get("symbol"))
            if features is not None:
                probability = self.get_model_prediction(features, asset_id)
                action = self.generate_trade_action(probability, *_held(current_portfolio_status))
                self.latest_prediction_probabilities = probability
                return action
        except Exception as error:
            self.latest_refusal = error if isinstance(error, ServeAppError) else StageFailed(f"no decision: {error}")
            self.logger.exception("no decision on this bar")
        return self._without_model(current_portfolio_status)

    def _without_model(self, portfolio: Mapping[str, Any]) -> str:
        try:
            rules, position = self._rules(), self._position(*_held(portfolio))
            if position is None:
                return Action.HOLD.value
            return rules.action_without_model(position.status is PositionStatus.LONG, rules.held(position)).value
        except Exception:
            self.logger.exception("not even the exit on time can be decided")
            return Action.HOLD.value


def _held(portfolio: Mapping[str, Any]) -> tuple[Any, Any]:
    return portfolio.get("position_type", PositionStatus.FLAT.value), portfolio.get("time_in_position_hours", 0)


def _array(value: Any, what: str, kinds: str) -> "NDArray[Any]":
    """Return a tensor or an array, wherever it is, as a contiguous array. Raises StageFailed."""
    try:
        array = np.ascontiguousarray(value.detach().cpu() if isinstance(value, Tensor) else value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise StageFailed(f"the {what} is no array of numbers: {error}") from error
    if array.dtype.kind not in kinds:
        raise StageFailed(f"the {what} is of {array.dtype}; prepare_input_sequence gives what is needed")
    return array
