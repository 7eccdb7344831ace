"""Foreign training artefacts → what a bundle is made of, checked against one another.

The weights decide: architecture and dimensions come from their names and shapes, and what the checkpoint's own
configuration says otherwise is reported, not believed. What cannot be known is refused, never guessed.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue

from serve_app.errors import BundleError, ConfigError, NotFound
from serve_app.model.architectures import build_architecture, canonical_name
from serve_app.model.bundle import CUSTOM, Dimension, ScalerFile
from serve_app.model.foreign.artefacts import Artefacts, read_artefacts
from serve_app.model.foreign.differences import config_differences, name_differences
from serve_app.model.foreign.isolation import read_isolated
from serve_app.model.foreign.programs import ANY_ROW, check_program, load_program, rows_of, runtime_of
from serve_app.model.foreign.scalers import ScalerNumbers, check_scaler, scaler_numbers
from serve_app.model.foreign.shapes import (
    EMBEDDING,
    Shapes,
    check_head,
    check_tensors,
    infer_architecture,
    infer_dimensions,
    probe,
)
from serve_app.model.foreign.texts import in_config, parse_feature_list, parse_json, read_feature_list, read_mapping
from serve_app.model.foreign.unsaid import USUAL_LOOKBACK, pooling_of, window_of
from serve_app.types import FloatArray, Runtime

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
    feature_names: tuple[str, ...] | None = None
    symbol_to_id: Mapping[str, int] | None = None
    """Both in place of a file."""
    isolated: bool = True
    """False: read, and with trust unpickle, in this process, where the classes of a whole module may live."""


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model that was trained elsewhere, in our words."""

    runtime: Runtime
    architecture: str
    dimensions: Mapping[str, Dimension]
    lookback_window: int
    weights: Mapping[str, FloatArray]
    """Of a network that was rebuilt; empty for a program."""
    program: bytes | None
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


@dataclass(frozen=True, slots=True)
class _Network:
    """What computes: a network that was rebuilt, or a program."""

    runtime: Runtime
    architecture: str
    dimensions: Mapping[str, Dimension]
    lookback_window: int
    symbol_to_id: Mapping[str, int]
    differences: Sequence[str]


def read_foreign(sources: Sources, reading: Reading) -> ForeignModel:
    """Read the files of a foreign model and hold them against one another.

    Raises:
        NotFound: a file is not there.
        ConfigError: an option contradicts the files, or is needed and not given.
        BundleError: the files cannot become a bundle; the message says why and what to do.
    """
    contents = sources.contents()
    runtime = runtime_of(sources.model, contents["model"])
    program = None if runtime is Runtime.TORCH else contents["model"]
    artefacts, weights = _artefacts(None if program else contents["model"], contents.get("scaler"), reading)
    feature_list = read_feature_list(_listed(contents, artefacts, reading))
    numbers = _scaler_numbers(contents.get("scaler"), artefacts)
    given_map = _given_map(contents, artefacts, reading)
    if program is None:
        network = _rebuilt(artefacts, weights, len(feature_list), given_map, reading)
    else:
        network = _kept(runtime, program, len(feature_list), given_map, reading)
    return ForeignModel(
        runtime=network.runtime,
        architecture=network.architecture,
        dimensions=network.dimensions,
        lookback_window=network.lookback_window,
        weights=weights,
        program=program,
        scaler=check_scaler(numbers, len(feature_list)),
        symbol_to_id=network.symbol_to_id,
        feature_list=feature_list,
        config=artefacts.config,
        metrics=artefacts.metrics,
        origin=_origin(
            sources, contents, artefacts.form if program is None else f"{runtime} program", artefacts, numbers
        ),
        differences=(*artefacts.notes, *network.differences, *name_differences(numbers, feature_list)),
    )


def _listed(contents: Mapping[str, bytes], artefacts: Artefacts, reading: Reading) -> Any:
    if reading.feature_names is not None:
        return reading.feature_names
    return parse_feature_list(contents["feature_list"]) if "feature_list" in contents else in_config(artefacts.config)


def _given_map(contents: Mapping[str, bytes], artefacts: Artefacts, reading: Reading) -> JsonValue:
    if reading.symbol_to_id is not None:
        return dict(reading.symbol_to_id)
    return parse_json(contents["asset_map"], "the asset map") if "asset_map" in contents else artefacts.asset_map


def _rebuilt(
    artefacts: Artefacts, weights: Mapping[str, FloatArray], listed: int, given_map: JsonValue, reading: Reading
) -> _Network:
    """Build one of our networks from the names and shapes of the weights."""
    shapes = {name: values.shape for name, values in weights.items()}
    architecture = _architecture(shapes, reading)
    asked = reading.lookback_window
    n_features, lookback_window, notes = window_of(architecture, shapes, listed, artefacts.config, asked)
    pooling, how = pooling_of(architecture, artefacts, reading.use_pooling)
    dimensions = infer_dimensions(architecture, shapes, n_features, lookback_window, pooling)
    check_tensors(architecture, dimensions, shapes)
    _check_probe(architecture, dimensions, weights, artefacts.probe)
    differences = [*notes, *how, *config_differences(architecture, dimensions, artefacts.config)]
    mapping = _mapping(given_map, shapes[EMBEDDING][0])
    return _Network(Runtime.TORCH, architecture, dimensions, lookback_window, mapping, differences)


def _kept(runtime: Runtime, program: bytes, listed: int, given_map: JsonValue, reading: Reading) -> _Network:
    """Keep a program as it is, once it has answered."""
    predictor, rows = load_program(runtime, program)
    lookback_window, notes = rows_of(rows, reading.lookback_window, USUAL_LOOKBACK)
    mapping = _mapping(given_map, ANY_ROW)
    check_program(predictor, mapping, lookback_window, listed)
    return _Network(runtime, CUSTOM, {}, lookback_window, mapping, notes)


def _artefacts(
    model: bytes | None, scaler: bytes | None, reading: Reading
) -> tuple[Artefacts, Mapping[str, FloatArray]]:
    if scaler is not None and _is_json(scaler):
        scaler = None
    if reading.isolated:
        return read_isolated(model, scaler, reading.trust_pickle, reading.time_limit_s)
    artefacts, weights = read_artefacts(model, scaler, reading.trust_pickle)
    return artefacts, {name: tensor.numpy() for name, tensor in weights.items()}


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


def _mapping(value: JsonValue, num_assets: int) -> dict[str, int]:
    if value is None:
        raise BundleError(
            "there is no asset map: the model file holds none under 'asset_id_map'; give the one it was trained with as"
            " --asset-map FILE, such as asset_id_mapping.json"
        )
    return read_mapping(value, num_assets)


def _origin(
    sources: Sources, contents: Mapping[str, bytes], form: str, artefacts: Artefacts, numbers: ScalerNumbers
) -> dict[str, Any]:
    return {
        "sources": {
            role: {"file": getattr(sources, role).name, "sha256": hashlib.sha256(content).hexdigest()}
            for role, content in contents.items()
        },
        "unpickled": list(artefacts.unpickled),
        "converted": {
            "model": form,
            "scaler": f"{numbers.form}, from the {'scaler file' if 'scaler' in contents else 'checkpoint'}",
            "asset_map": "from its file" if "asset_map" in contents else "from the checkpoint",
            "feature_list": "from its file" if "feature_list" in contents else "from the checkpoint's config",
        },
    }
