"""Foreign training artefacts → what a bundle is made of, checked against one another.

The weights decide: architecture and dimensions come from their names and shapes, and what the checkpoint's own
configuration says otherwise is reported, not believed. What cannot be known is refused, never guessed.
"""

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from serve_app.errors import BundleError, ConfigError, NotFound
from serve_app.model.architectures import build_architecture, canonical_name
from serve_app.model.bundle import Dimension, ScalerFile
from serve_app.model.foreign.artefacts import Artefacts, read_artefacts
from serve_app.model.foreign.differences import config_differences, name_differences, unlike
from serve_app.model.foreign.isolation import read_isolated
from serve_app.model.foreign.scalers import ScalerNumbers, check_scaler, scaler_numbers
from serve_app.model.foreign.shapes import (
    EMBEDDING,
    Shapes,
    check_head,
    check_tensors,
    infer_architecture,
    infer_dimensions,
    probe,
    step_width,
)
from serve_app.model.foreign.texts import in_config, parse_feature_list, parse_json, read_feature_list, read_mapping
from serve_app.types import FloatArray

SEED_LOOKBACK = 24
PROBE_TOLERANCE = 1e-5
"""Of logits, relative where they are large: what another order of the same sums may change."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The files of a model that was trained elsewhere; what is not given must be inside the model file."""

    model: Path
    scaler: Path | None = None
    asset_map: Path | None = None
    feature_list: Path | None = None

    def contents(self) -> dict[str, bytes]:
        """Read every file once, by role. Raises NotFound."""
        roles = {name: getattr(self, name) for name in self.__slots__}
        missing = [f"{role} {path}" for role, path in roles.items() if path is not None and not path.is_file()]
        if missing:
            raise NotFound(f"no file for the {', '.join(missing)}")
        return {role: path.read_bytes() for role, path in roles.items() if path is not None}


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read the files, and what none of them can say."""

    trust_pickle: bool = False
    time_limit_s: float = 60.0
    architecture: str | None = None
    """What the caller takes it for; the weights must agree."""
    lookback_window: int | None = None
    """None: an mlp's own, else the checkpoint's `lookback_window`, else 24."""
    use_pooling: bool | None = None
    """Whether a cnn_lstm pools; None: as the whole module or the checkpoint's configuration says."""
    isolated: bool = True
    """False: read, and with trust unpickle, in this process, where the classes of a whole module may live."""


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model that was trained elsewhere, in our words."""

    architecture: str
    dimensions: Mapping[str, Dimension]
    lookback_window: int
    weights: Mapping[str, FloatArray]
    scaler: ScalerFile
    symbol_to_id: Mapping[str, int]
    feature_list: tuple[str, ...]
    config: Mapping[str, JsonValue]
    """Of the checkpoint, as it was found."""
    metrics: Mapping[str, JsonValue]
    origin: Mapping[str, Any]
    """Names and SHA-256 of the files, and what was made of them."""
    differences: tuple[str, ...]
    """What the files say differently, and what was changed."""


def read_foreign(sources: Sources, reading: Reading) -> ForeignModel:
    """Read the files of a foreign model and hold them against one another.

    Raises:
        NotFound: a file is not there.
        ConfigError: an option contradicts the files, or is needed and not given.
        BundleError: the files cannot become a bundle; the message says why and what to do.
    """
    contents = sources.contents()
    artefacts, weights = _artefacts(sources, contents, reading)
    shapes = {name: values.shape for name, values in weights.items()}
    architecture = _architecture(shapes, reading)
    feature_list = read_feature_list(
        parse_feature_list(contents["feature_list"]) if "feature_list" in contents else in_config(artefacts.config)
    )
    numbers = _scaler_numbers(contents.get("scaler"), artefacts)
    n_features, lookback_window, notes = _window(architecture, shapes, len(feature_list), artefacts.config, reading)
    pooling, how = _pooling(architecture, artefacts, reading)
    dimensions = infer_dimensions(architecture, shapes, n_features, lookback_window, pooling)
    check_tensors(architecture, dimensions, shapes)
    _check_probe(architecture, dimensions, weights, artefacts.probe)
    given_map = parse_json(contents["asset_map"], "the asset map") if "asset_map" in contents else artefacts.asset_map
    return ForeignModel(
        architecture=architecture,
        dimensions=dimensions,
        lookback_window=lookback_window,
        weights=weights,
        scaler=check_scaler(numbers, n_features),
        symbol_to_id=_mapping(given_map, shapes),
        feature_list=feature_list,
        config=artefacts.config,
        metrics=artefacts.metrics,
        origin=_origin(sources, contents, artefacts, numbers),
        differences=(
            *artefacts.notes,
            *notes,
            *how,
            *config_differences(architecture, dimensions, artefacts.config),
            *name_differences(numbers, feature_list),
        ),
    )


def _artefacts(
    sources: Sources, contents: Mapping[str, bytes], reading: Reading
) -> tuple[Artefacts, dict[str, FloatArray]]:
    _refuse_runtimes(sources.model, contents["model"])
    scaler = contents.get("scaler")
    if scaler is not None and _is_json(scaler):
        scaler = None
    if reading.isolated:
        return read_isolated(contents["model"], scaler, reading.trust_pickle, reading.time_limit_s)
    artefacts, weights = read_artefacts(contents["model"], scaler, reading.trust_pickle)
    return artefacts, {name: tensor.numpy() for name, tensor in weights.items()}


def _refuse_runtimes(path: Path, content: bytes) -> None:
    """Refuse what is a program of its own rather than weights."""
    kind = "an ONNX graph" if path.suffix.lower() == ".onnx" else None
    if zipfile.is_zipfile(io.BytesIO(content)):
        try:
            names = zipfile.ZipFile(io.BytesIO(content)).namelist()
        except zipfile.BadZipFile as error:
            raise BundleError(
                f"{path} is a broken archive: {error}; copy it again from where it was trained"
            ) from error
        if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
            kind = "TorchScript"
    if kind is not None:
        raise BundleError(
            f"{path} is {kind}: it is served by a runtime that this version does not have yet. Give the checkpoint that"
            " it was exported from, or its state dict"
        )


def _is_json(content: bytes) -> bool:
    return content.lstrip()[:1] == b"{"


def _architecture(shapes: Shapes, reading: Reading) -> str:
    architecture = infer_architecture(shapes)
    if reading.architecture is not None and canonical_name(reading.architecture) != architecture:
        raise ConfigError(f"--architecture says {reading.architecture}, but the weights are those of {architecture}")
    check_head(architecture, shapes)
    return architecture


def _scaler_numbers(content: bytes | None, artefacts: Artefacts) -> ScalerNumbers:
    if content is not None and _is_json(content):
        return scaler_numbers(parse_json(content, "the scaler"))
    if artefacts.scaler is None:
        raise BundleError(
            "there is no scaler: the model file holds none under 'scalers'; give the one it was trained with as"
            " --scaler FILE, a joblib file or JSON {mean, scale}"
        )
    return artefacts.scaler


def _window(
    architecture: str, shapes: Shapes, listed: int, config: Mapping[str, JsonValue], reading: Reading
) -> tuple[int, int, list[str]]:
    """Return the number of features, the rows of a window, and what is to be said about them."""
    width = step_width(architecture, shapes)
    if architecture == "mlp":
        if width % listed:
            raise BundleError(f"the mlp takes {width} numbers, no whole number of rows of the {listed} listed features")
        if reading.lookback_window not in {None, width // listed}:
            raise ConfigError(
                f"--lookback says {reading.lookback_window} rows, but the mlp takes {width // listed} rows of {listed}"
                " features"
            )
        return listed, width // listed, unlike("lookback_window", config, width // listed)
    if width != listed:
        raise BundleError(
            f"the model takes {width} features, the feature list names {listed}: they do not belong together; list the"
            " features that the model was trained on, in their order"
        )
    said = config.get("lookback_window")
    if reading.lookback_window is not None:
        return (
            listed,
            reading.lookback_window,
            unlike("lookback_window", config, reading.lookback_window, "--lookback"),
        )
    if isinstance(said, int) and not isinstance(said, bool) and said > 0:
        return (
            listed,
            said,
            [f"the weights take windows of any length; lookback_window {said} is the checkpoint's word"],
        )
    return listed, SEED_LOOKBACK, [f"nothing says how long a window is; lookback_window {SEED_LOOKBACK} is assumed"]


def _pooling(architecture: str, artefacts: Artefacts, reading: Reading) -> tuple[bool, list[str]]:
    """Return whether a cnn_lstm pools, and on whose word; for the others it means nothing."""
    if architecture != "cnn_lstm":
        return False, []
    seen, said = artefacts.use_pooling, artefacts.config.get("use_pooling")
    if seen is not None:
        if reading.use_pooling not in {None, seen}:
            raise ConfigError(f"--{'' if reading.use_pooling else 'no-'}pooling, but the module does otherwise")
        return seen, []
    if reading.use_pooling is not None:
        return reading.use_pooling, unlike("use_pooling", artefacts.config, reading.use_pooling, "--pooling")
    if isinstance(said, bool):
        return said, [f"the weights do not show pooling; use_pooling {str(said).lower()} is the checkpoint's word"]
    raise ConfigError(
        "the weights of a cnn_lstm do not show whether it pools, and there is no use_pooling in the checkpoint's"
        " config; say --pooling or --no-pooling"
    )


def _check_probe(
    architecture: str,
    dimensions: Mapping[str, Dimension],
    weights: Mapping[str, FloatArray],
    original: list[float] | None,
) -> None:
    """Hold the rebuilt network against what a whole module answered: equal names do not make equal networks."""
    if original is None:
        return
    module = build_architecture(architecture, dimensions).eval()
    module.load_state_dict({name: torch.from_numpy(values) for name, values in weights.items()})
    windows, ids = probe(architecture, {name: values.shape for name, values in weights.items()})
    with torch.inference_mode():
        logits = module(windows, ids).numpy()
    if len(original) != len(logits) or not np.allclose(logits, original, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE):
        raise BundleError(
            f"the module has the tensors of {architecture} but computes something else: on the same windows it gives"
            f" logits {np.round(original, 4).tolist()}, the rebuilt network {np.round(logits, 4).tolist()}"
        )


def _mapping(value: JsonValue, shapes: Shapes) -> dict[str, int]:
    if value is None:
        raise BundleError(
            "there is no asset map: the model file holds none under 'asset_id_map'; give the one it was trained with as"
            " --asset-map FILE, such as asset_id_mapping.json"
        )
    return read_mapping(value, shapes[EMBEDDING][0])


def _origin(
    sources: Sources, contents: Mapping[str, bytes], artefacts: Artefacts, numbers: ScalerNumbers
) -> dict[str, Any]:
    return {
        "sources": {
            role: {"file": getattr(sources, role).name, "sha256": hashlib.sha256(content).hexdigest()}
            for role, content in contents.items()
        },
        "unpickled": list(artefacts.unpickled),
        "converted": {
            "model": artefacts.form,
            "scaler": f"{numbers.form}, from the {'scaler file' if 'scaler' in contents else 'checkpoint'}",
            "asset_map": "from its file" if "asset_map" in contents else "from the checkpoint",
            "feature_list": "from its file" if "feature_list" in contents else "from the checkpoint's config",
        },
    }
