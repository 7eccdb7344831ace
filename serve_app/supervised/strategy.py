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

from serve_app.errors import ConfigError, InvalidPosition, ServeAppError, StageFailed, UnknownSymbol
from serve_app.strategy import Strategy
from serve_app.supervised.loading import InProcess, load, load_own, load_sources, thresholds_of
from serve_app.types import Action, Position, PositionStatus, WindowBatch

if TYPE_CHECKING:
    import pandas as pd

    from serve_app.model import Bundle
    from serve_app.preprocess import Scaler

FLAT = PositionStatus.FLAT


class SupervisedNNStrategy:
    """One model and its rules, from a dict of settings. See the package for where it differs from what it stands for.

    Keys: `model_path`, `scaler_path`, `asset_id_map_path`, `feature_list`, `lookback_window` (24), or `bundle` in place
    of them all; `signal_threshold` (0.7), `exit_threshold` (none), `max_holding_period_hours` (8), `trust_pickle`
    (False), `tracking_uri`. What is named is loaded at once. Raises ConfigError for a threshold that is none, and as
    `load_dependencies`.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.logger = logging.getLogger(f"{__name__}.{type(self).__name__}")
        self.latest_prediction_probabilities: float | None = None
        self.latest_true_label: Any = None
        self.latest_refusal: ServeAppError | None = None
        self._in_process: InProcess | None = None
        self._strategy = Strategy(thresholds_of(config), timedelta(hours=1))
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
        self._take(load(self.config))

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
                self._take(load_own(files.bundle, self.config))
                return
            self._fill_in(files.params)
            self._take(load_sources(files.sources, self.config))

    def _fill_in(self, params: Mapping[str, str]) -> None:
        try:
            if "lookback_window" in params:
                self.config["lookback_window"] = int(params["lookback_window"])
            if "signal_threshold" in params:
                self.config.setdefault("signal_threshold", float(params["signal_threshold"]))
        except ValueError as error:
            raise ConfigError(f"a parameter of the run is no number: {error}") from error

    def _take(self, bundle: "Bundle") -> None:
        self._in_process = InProcess.of(bundle)
        self._strategy = self._in_process.pipeline.strategy

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
        if not symbol:
            raise UnknownSymbol("without a symbol there is no embedding to take")
        return loaded.batch([loaded.row(symbol, frame)])

    def get_model_prediction(self, feature_tensor: Tensor, asset_id_tensor: Tensor | None = None) -> float:
        """Return the probability for one scaled window (1, L, F) and its asset id (1,).

        Raises StageFailed for anything that gives none: never 0.5.
        """
        loaded = self._loaded()
        if asset_id_tensor is None:
            raise StageFailed("the model needs an asset id; prepare_input_sequence gives it with the window")
        windows = np.ascontiguousarray(feature_tensor, dtype=np.float32)
        ids = np.ascontiguousarray(asset_id_tensor, dtype=np.int64).reshape(-1)
        if len(ids) != 1:
            raise StageFailed(f"{len(ids)} asset ids; this predicts one window at a time, BatchInferenceEngine many")
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
        is_long = position.status is PositionStatus.LONG
        return self._strategy.action(probability, is_long, self._strategy.held(position)).value

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
        self.latest_prediction_probabilities, self.latest_true_label = None, bar_data.get("true_label")
        status = current_portfolio_status.get("position_type", FLAT.value)
        hours = current_portfolio_status.get("time_in_position_hours", 0)
        try:
            features, asset_id = self.prepare_input_sequence(historical_window_df, bar_data.get("symbol"))
            if features is None:
                return self._without_model(status, hours)
            probability = self.get_model_prediction(features, asset_id)
            action = self.generate_trade_action(probability, status, hours)
        except Exception:
            self.logger.exception("no decision on %s", bar_data.get("symbol"))
            return self._without_model(status, hours)
        self.latest_prediction_probabilities = probability
        return action

    def _without_model(self, status: Any, hours: Any) -> str:
        try:
            position = self._position(status, hours)
            held = 0.0 if position is None else self._strategy.held(position)
        except InvalidPosition:
            return Action.HOLD.value
        is_long = position is not None and position.status is PositionStatus.LONG
        return self._strategy.action_without_model(is_long, held).value
