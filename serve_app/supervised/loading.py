"""What older code names in a dict → a bundle and its stages, in this process."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from serve_app.errors import BundleError, ConfigError, NotFound, ServeAppError, StageFailed
from serve_app.model import Bundle, LabelDefinition, load_bundle
from serve_app.model.foreign.artefacts import TRUST
from serve_app.model.foreign.convert import Reading, Sources, read_foreign
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline, preprocess_of, stages_of
from serve_app.preprocess import Preprocess
from serve_app.supervised.frames import history_of
from serve_app.training.imported import ImportSettings, unbuilt_bundle
from serve_app.types import FloatArray, Row, SignalRequest, Thresholds, WindowBatch

if TYPE_CHECKING:
    import pandas as pd

TRUST_HERE = 'if you know who made it, set config["trust_pickle"] = True: it then runs, in this process'
HOURLY_S = 3600.0
UNUSED_LABEL = LabelDefinition(profit_target=0.05, stop_loss=0.02, horizon_bars=8, entry="close")
"""Of a bundle that is never written: nothing here asks what the model was trained on."""


class MissingSetting(ConfigError, ValueError):
    """A key of the configuration that is needed is not there."""


class MissingFile(NotFound, FileNotFoundError):
    """A file that the configuration names is not there."""


@dataclass(frozen=True, slots=True)
class InProcess:
    """A bundle and its stages, without an event loop."""

    bundle: Bundle
    pipeline: Pipeline
    preprocess: Preprocess
    model: Model

    def batch(self, rows: Sequence[Row]) -> WindowBatch:
        """Turn validated rows into scaled windows (B, L, F)."""
        return self.preprocess.windows(self.pipeline.stack(rows))  # noqa: PD013  no frame

    def row(self, symbol: str, frame: "pd.DataFrame") -> Row:
        """Validate the data of a symbol. Raises a subclass of UnusableRequest."""
        return self.pipeline.row(SignalRequest(symbol, history_of(frame, self.pipeline.feature_set)))

    def predict(self, windows: WindowBatch) -> FloatArray:
        """Return probabilities (B,), NaN where the model gives none. Raises StageFailed when it does not answer."""
        try:
            return self.model.predict(windows).probabilities
        except ServeAppError:
            raise
        except Exception as error:
            raise StageFailed(f"the model did not answer: {error}") from error

    @classmethod
    def of(cls, bundle: Bundle) -> "InProcess":
        """Build the stages of a bundle."""
        model = Model(bundle)
        return cls(bundle, Pipeline(bundle, stages_of(bundle, model.run)), preprocess_of(bundle), model)


def thresholds_of(config: Mapping[str, Any], default: Thresholds | None = None) -> Thresholds:
    """Return the thresholds that a configuration sets, over those of a bundle if there is one. Raises ConfigError."""
    known = {"signal_threshold": "signal_threshold", "exit_threshold": "exit_threshold"}
    known["max_holding_period_hours"] = "max_holding_period"
    given = {field: config[key] for key, field in known.items() if key in config}
    base = default or Thresholds()
    if "max_holding_period" in given and default is not None and default.holding_unit != "hours":
        longest = f"{default.max_holding_period:g} {default.holding_unit}"
        raise ConfigError(f"the bundle holds for {longest}; leave out max_holding_period_hours")
    try:
        return Thresholds(**{name: given.get(name, getattr(base, name)) for name in Thresholds.__slots__})
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][0]} is {e['input']!r}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"the configuration cannot be used: {wrong}") from error


def load(config: Mapping[str, Any]) -> Bundle:
    """Load what a configuration names: a `bundle`, or `model_path` and what belongs to it.

    Raises MissingSetting, MissingFile, ConfigError or BundleError.
    """
    if config.get("bundle"):
        return load_own(Path(config["bundle"]), config)
    sources = Sources(
        model=_file(config, "model_path", "Model"),
        scaler=_file(config, "scaler_path", "Scaler"),
        asset_map=_file(config, "asset_id_map_path", "Asset map") if config.get("asset_id_map_path") else None,
    )
    return load_sources(sources, config)


def load_sources(sources: Sources, config: Mapping[str, Any]) -> Bundle:
    """Read the files of a foreign model in this process. Raises ConfigError or BundleError."""
    listed, mapping = config.get("feature_list"), config.get("asset_id_map")
    reading = Reading(
        trust_pickle=config.get("trust_pickle") is True,
        lookback_window=_whole(config, "lookback_window"),
        feature_names=tuple(listed) if listed else None,
        symbol_to_id=dict(mapping) if mapping else None,
        isolated=False,
    )
    settings = ImportSettings("v0.0", datetime.now(UTC), thresholds_of(config), UNUSED_LABEL, HOURLY_S)
    try:
        return unbuilt_bundle(read_foreign(sources, reading), settings, sources.model.parent)
    except BundleError as error:
        raise type(error)(str(error).replace(TRUST, TRUST_HERE)) from error


def load_own(path: Path, config: Mapping[str, Any]) -> Bundle:
    """Load a bundle, with the thresholds that the configuration sets. Raises ConfigError or BundleError."""
    bundle = load_bundle(path)
    thresholds = thresholds_of(config, bundle.config.strategy)
    return replace(bundle, config=bundle.config.model_copy(update={"strategy": thresholds}))


def _whole(config: Mapping[str, Any], key: str) -> int | None:
    value = config.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise ConfigError(f"{key} is {value!r}; it must be a whole number of rows, at least 1")
    return value


def _file(config: Mapping[str, Any], key: str, what: str) -> Path:
    if not config.get(key):
        raise MissingSetting(f"{key} must be specified in config")
    path = Path(config[key])
    if not path.is_file():
        raise MissingFile(f"{what} file not found: {path}")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises MissingFile or ConfigError."""
    if not path.is_file():
        raise MissingFile(f"Configuration file not found: {path}")
    try:
        document = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path} is no JSON object")
    return document
