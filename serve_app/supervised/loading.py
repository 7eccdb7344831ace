"""What older code names in a dict → a bundle, in memory."""

import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from serve_app.errors import BundleError, ConfigError, NotFound, ServeAppError
from serve_app.model import Bundle, LabelDefinition, load_bundle
from serve_app.model.foreign.artefacts import TRUST
from serve_app.model.foreign.convert import Reading, Sources, read_foreign
from serve_app.model.foreign.texts import HOW_TO_LIST
from serve_app.training.imported import ImportSettings, unbuilt_bundle
from serve_app.types import Thresholds

log = logging.getLogger(__name__)

THRESHOLDS: Mapping[str, str] = {
    "signal_threshold": "signal_threshold",
    "exit_threshold": "exit_threshold",
    "max_holding_period_hours": "max_holding_period",
}
"""Key of the configuration → field of `Thresholds`."""
OF_BUNDLE = ("model_path", "scaler_path", "asset_id_map_path", "asset_id_map", "use_pooling")
"""Keys that say nothing beside `bundle`, which has its own."""
KEYS = {*THRESHOLDS, *OF_BUNDLE, "bundle", "feature_list", "lookback_window", "trust_pickle", "tracking_uri"}
IN_PLACE_OF_OPTIONS: Mapping[str, str] = {
    TRUST: 'if you know who made it, set config["trust_pickle"] = True: it then runs, in this process',
    HOW_TO_LIST: 'set config["feature_list"] to the names of the model\'s features in the order that it was trained on',
    "--scaler FILE": 'config["scaler_path"]',
    "--asset-map FILE": 'config["asset_id_map_path"]',
    "say --pooling or --no-pooling": 'set config["use_pooling"] to True or False',
    "--no-pooling": "use_pooling = False",
    "--pooling": "use_pooling = True",
    "--lookback": "lookback_window",
}
"""What the reader of foreign files says to a command line → what it says here."""
HOURLY_S = 3600.0
UNUSED_LABEL = LabelDefinition(profit_target=0.05, stop_loss=0.02, horizon_bars=8, entry="close")
"""Of a bundle that is never written: nothing here asks what the model was trained on."""


class MissingSetting(ConfigError, ValueError):
    """A key of the configuration that is needed is not there."""


class MissingFile(NotFound, FileNotFoundError):
    """A file that the configuration names is not there."""


def thresholds_of(config: Mapping[str, Any], default: Thresholds | None = None) -> Thresholds:
    """Return the thresholds that a configuration sets, over those of a bundle if there is one. Raises ConfigError."""
    base = default or Thresholds()
    if "max_holding_period_hours" in config and base.holding_unit != "hours":
        longest = f"{base.max_holding_period:g} {base.holding_unit}"
        raise ConfigError(f"the bundle holds for {longest}; leave out max_holding_period_hours")
    given = {field: config[key] for key, field in THRESHOLDS.items() if key in config}
    try:
        return Thresholds(**{name: given.get(name, getattr(base, name)) for name in Thresholds.__slots__})
    except ValidationError as error:
        keys = {field: key for key, field in THRESHOLDS.items()}
        wrong = "; ".join(f"{keys[str(e['loc'][0])]} is {e['input']!r}: {e['msg']}" for e in error.errors())
        raise ConfigError(f"the configuration cannot be used: {wrong}") from error


def warn_of_unread(config: Iterable[str]) -> None:
    """Say which keys nothing reads: a misspelt threshold would go unnoticed."""
    unread = sorted(str(key) for key in config if key not in KEYS)
    if unread:
        log.warning("the configuration has keys that nothing reads: %s", ", ".join(unread))


def load(config: Mapping[str, Any]) -> Bundle:
    """Load what a configuration names: a `bundle`, or `model_path` and what belongs to it.

    Raises MissingSetting, MissingFile, ConfigError or BundleError.
    """
    if config.get("bundle"):
        return _own(config)
    model, scaler = _file(config, "model_path", "Model"), _file(config, "scaler_path", "Scaler")
    return load_sources(Sources(model, scaler), config)


def load_sources(sources: Sources, config: Mapping[str, Any]) -> Bundle:
    """Read the files of a foreign model in this process; the configuration names those that are not among them.

    Its features must be given: nothing says that those computed here, if they have the same names, are the same.
    Raises MissingFile, ConfigError or BundleError.
    """
    files = Sources(
        model=sources.model,
        scaler=sources.scaler or _file_if_named(config, "scaler_path", "Scaler"),
        asset_map=sources.asset_map or _file_if_named(config, "asset_id_map_path", "Asset map"),
        feature_list=sources.feature_list,
    )
    settings = ImportSettings("v0.0", datetime.now(UTC), Thresholds(), UNUSED_LABEL, HOURLY_S)
    try:
        foreign = read_foreign(files, _reading(config))
        bundle = unbuilt_bundle(foreign, settings, files.model.parent)
    except (BundleError, ConfigError) as error:
        raise in_place_of_options(error) from error
    except OSError as error:
        raise BundleError(f"a file of the model cannot be read: {error}") from error
    for difference in foreign.differences:
        log.warning("%s: %s", files.model, difference)
    as_features: dict[str, Any] = {"feature_set": None, "exogenous": {}, "bars_needed": 0}
    return replace(bundle, config=bundle.config.model_copy(update=as_features))


def in_place_of_options(error: ServeAppError) -> ServeAppError:
    """Return an error of the reader, which speaks of command-line options, in the words of a configuration."""
    message = str(error)
    for option, key in IN_PLACE_OF_OPTIONS.items():
        message = message.replace(option, key)
    return type(error)(message, **error.detail)


def rows_of_window(value: Any) -> int:
    """Return how many rows a window has. Raises MissingSetting for what is no such number."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise MissingSetting(f"lookback_window is {value!r}; it must be a whole number of rows, at least 1")
    return value


def _reading(config: Mapping[str, Any]) -> Reading:
    listed, mapping, rows = (config.get(key) for key in ("feature_list", "asset_id_map", "lookback_window"))
    pooling = config.get("use_pooling")
    if mapping is not None and not isinstance(mapping, Mapping):
        raise ConfigError(f"asset_id_map is a {type(mapping).__name__}; it must be a dict of symbol and id")
    if pooling not in (None, True, False):
        raise ConfigError(f"use_pooling is {pooling!r}; it must be True or False")
    return Reading(
        trust_pickle=config.get("trust_pickle") is True,
        lookback_window=None if rows is None else rows_of_window(rows),
        use_pooling=pooling,
        feature_names=_names(listed) or None,
        symbol_to_id=dict(mapping) if mapping else None,
        isolated=False,
    )


def _names(listed: Any) -> tuple[Any, ...]:
    if listed is None:
        return ()
    try:
        return (listed,) if isinstance(listed, str) else tuple(listed)
    except TypeError as error:
        raise ConfigError(f"feature_list is {listed!r}; it must be a list of names") from error


def _own(config: Mapping[str, Any]) -> Bundle:
    """Load the bundle that a configuration names, and hold against it what else is said there."""
    beside = [key for key in OF_BUNDLE if config.get(key)]
    if beside:
        raise ConfigError(f"a bundle has everything in it; leave out bundle, or {', '.join(beside)}")
    own = load_bundle(_path(config, "bundle"))
    names, rows = _names(config.get("feature_list")), config.get("lookback_window")
    if names and names != own.config.feature_list:
        raise ConfigError(f"feature_list is not that of the bundle {own.path}; leave it out")
    if rows is not None and rows_of_window(rows) != own.config.lookback_window:
        raise ConfigError(f"lookback_window is {rows}, the bundle's is {own.config.lookback_window}; leave it out")
    return own


def _file_if_named(config: Mapping[str, Any], key: str, what: str) -> Path | None:
    return _file(config, key, what) if config.get(key) else None


def _file(config: Mapping[str, Any], key: str, what: str) -> Path:
    if not config.get(key):
        raise MissingSetting(f"{key} must be specified in config")
    path = _path(config, key)
    if not path.is_file():
        raise MissingFile(f"{what} file not found: {path}")
    return path


def _path(config: Mapping[str, Any], key: str) -> Path:
    try:
        return Path(config[key])
    except TypeError as error:
        raise ConfigError(f"{key} is {config[key]!r}; it must be a path") from error


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
