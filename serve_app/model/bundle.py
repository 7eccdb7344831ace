"""The bundle: one immutable folder with all that a decision depends on, named by the digest of its manifest.

Nothing here unpickles: weights are safetensors, arrays are npz without objects, the rest is JSON. Programs of
TorchScript and ONNX are bytes here; whoever runs them looks at them first.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar
from zipfile import BadZipFile

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from serve_app.config import Section
from serve_app.errors import BundleCorrupt, BundleNotFound, UnknownSymbol
from serve_app.model.atomic import new_folder
from serve_app.model.gate import GateReport
from serve_app.model.golden import Golden
from serve_app.reference import Reference
from serve_app.types import FloatArray, Precision, Runtime, Thresholds

FORMAT_VERSION: Literal[1] = 1
MANIFEST = "manifest.json"
WEIGHTS = "model.safetensors"
SCRIPT = "model.ts"
GRAPH = "model.onnx"
SCALER = "scaler.json"
MAPPING = "asset_id_mapping.json"
CONFIG = "config.json"
METADATA = "metadata.json"
GOLDEN = "golden.npz"
GATES = "gates.json"
REFERENCE = "reference.npz"
NETWORKS: Mapping[Runtime, str] = {Runtime.TORCH: WEIGHTS, Runtime.TORCHSCRIPT: SCRIPT, Runtime.ONNX: GRAPH}
"""What computes a network → the file that it needs; a bundle has one of these files or several."""
ALWAYS = (SCALER, MAPPING, CONFIG, METADATA, GOLDEN)
FILES = (*NETWORKS.values(), *ALWAYS, GATES, REFERENCE)
CUSTOM = "custom"
"""The architecture of a model that is a program: nobody but the program knows it."""

Dimension = int | float | bool | Sequence[int]
"""Of an architecture: a width, a rate, a switch, or one number a layer."""


def tag_of(version: str) -> str:
    """Return the git tag of a model version."""
    return f"model-{version}"


ModelT = TypeVar("ModelT", bound=BaseModel)
T = TypeVar("T")


@pydantic_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class LabelDefinition:
    """Triple barrier (López de Prado 2018, chapter 3): a profit target, a stop and a time limit.

    Targets are fractions of the entry price. `next_open`: a decision after the close of bar t is filled at the open of
    bar t + 1; `close`: at the close of bar t itself, which training code elsewhere assumes. The label is 1 if the price
    reaches the target before the stop within `horizon_bars` bars from there; a bar that touches both counts as the
    stop. Raises pydantic's ValidationError for values that no trade can have.
    """

    profit_target: float = Field(gt=0)
    stop_loss: float = Field(gt=0, lt=1)
    horizon_bars: int = Field(gt=0)
    entry: Literal["next_open", "close"] = "next_open"


class BundleConfig(Section):
    """`config.json`: everything but numbers that serving needs."""

    model_version: str = Field(pattern=r"^v\d+\.\d+$")
    architecture: str
    dimensions: dict[str, Dimension]
    head: Literal["logit"] = "logit"
    """Logits out, shape (B,); their sigmoid is the probability of label 1, for which the strategy buys."""
    runtime: Runtime = Runtime.TORCH
    precision: Precision = Precision.FP32
    """With which it is served unless a configuration says otherwise."""
    feature_set: str | None
    """None: features that are not computed here, so that only the `features` form is taken."""
    feature_list: tuple[str, ...] = Field(min_length=1)
    lookback_window: int = Field(gt=0)
    bar_interval_s: float = Field(gt=0)
    nan_policy: Literal["ffill"] = "ffill"
    exogenous: dict[str, float]
    bars_needed: int = Field(ge=0)
    """0 without a feature set."""
    strategy: Thresholds
    label: LabelDefinition

    @property
    def bar_interval(self) -> timedelta:
        """Time from one bar to the next."""
        return timedelta(seconds=self.bar_interval_s)


class ScalerFile(Section):
    """`scaler.json`: standard scaling fitted on the training period, one entry a feature."""

    kind: Literal["standard"] = "standard"
    mean: list[float]
    scale: list[float]


class MappingFile(Section):
    """`asset_id_mapping.json`."""

    symbol_to_id: dict[str, int]


class Gates(Section):
    """`gates.json`."""

    passed: tuple[GateReport, ...]


class ManifestEntry(Section):
    """What one file of the bundle must be."""

    sha256: str
    bytes: int


class Manifest(Section):
    """`manifest.json`."""

    format_version: Literal[1]
    files: dict[str, ManifestEntry]


@dataclass(frozen=True, slots=True)
class Bundle:
    """A verified bundle. Weights are kept as arrays, so that this module needs no torch."""

    path: Path
    digest: str
    config: BundleConfig
    scaler: ScalerFile
    symbol_to_id: Mapping[str, int]
    metadata: Mapping[str, Any]
    weights: Mapping[str, FloatArray]
    """Empty when the model is a program only."""
    golden: Golden
    programs: Mapping[Runtime, bytes] = field(default_factory=dict)
    gates: tuple[GateReport, ...] = ()
    """What each export has passed."""
    reference: Reference | None = None
    """What the model saw in training; None of one that was trained elsewhere and given none."""

    @property
    def version(self) -> str:
        """The version that answers name, such as v1.0."""
        return self.config.model_version

    @property
    def runtimes(self) -> tuple[Runtime, ...]:
        """What can compute it."""
        return tuple(
            runtime for runtime in Runtime if runtime in self.programs or (runtime is Runtime.TORCH and self.weights)
        )

    def asset_id(self, symbol: str) -> int:
        """Return the embedding row of a symbol. Raises UnknownSymbol: never another symbol's embedding."""
        if symbol not in self.symbol_to_id:
            known = sorted(self.symbol_to_id)
            raise UnknownSymbol(
                f"model {self.version} was not trained on {symbol!r}; it knows {', '.join(known)}", known=known
            )
        return self.symbol_to_id[symbol]


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _parse(model: type[ModelT], content: bytes, path: Path) -> ModelT:
    try:
        return TypeAdapter(model).validate_json(content)
    except ValidationError as error:
        raise BundleCorrupt(f"{path}: {error}") from error


def _decode(decode: Callable[[bytes], T], content: bytes, path: Path) -> T:
    """Decode what a manifest vouches for but somebody may have built wrongly."""
    try:
        return decode(content)
    except (SafetensorError, ValueError, KeyError, TypeError, EOFError, OSError, MemoryError, BadZipFile) as error:
        raise BundleCorrupt(f"{path} cannot be read: {error}") from error


def _json_object(content: bytes) -> dict[str, Any]:
    value = json.loads(content)
    if not isinstance(value, dict):
        raise TypeError("it is not a JSON object")
    return value


def _read(folder: Path, name: str, entry: ManifestEntry) -> bytes:
    """Read one file and hold it against the manifest, so that what was checked is what is used."""
    path = folder / name
    if path.is_symlink() or not path.is_file():
        raise BundleCorrupt(f"{path} is missing or not a plain file; restore the bundle from where it was built")
    if path.stat().st_size != entry.bytes:
        raise BundleCorrupt(f"{path} has {path.stat().st_size} bytes, the manifest says {entry.bytes}")
    content = path.read_bytes()
    if _digest(content) != entry.sha256:
        raise BundleCorrupt(f"{path} was changed since the bundle was built: its SHA-256 is not the one in {MANIFEST}")
    return content


def _read_manifest(folder: Path) -> tuple[str, Manifest]:
    path = folder / MANIFEST
    if not path.exists():
        raise BundleNotFound(f"no bundle at {folder}: there is no {MANIFEST}")
    if path.is_symlink() or not path.is_file():
        raise BundleCorrupt(f"{path} is not a plain file; restore the bundle from where it was built")
    content = path.read_bytes()
    manifest = _parse(Manifest, content, path)
    # The digest of a manifest is the bundle's name; a manifest in any other spelling is not one that we wrote.
    if content != _json(manifest.model_dump()):
        raise BundleCorrupt(f"{path} was changed: it is not in canonical form")
    listed = set(manifest.files)
    if not (set(ALWAYS) <= listed <= set(FILES) and listed & set(NETWORKS.values())):
        raise BundleCorrupt(
            f"{path} lists {sorted(listed)}, a bundle has {', '.join(ALWAYS)}, one or more of"
            f" {', '.join(NETWORKS.values())}, {GATES} with exports, and {REFERENCE} if it was trained here"
        )
    extra = {entry.name for entry in folder.iterdir()} - listed - {MANIFEST}
    if extra:
        raise BundleCorrupt(f"{folder} holds files that the manifest does not list: {', '.join(sorted(extra))}")
    return f"sha256:{_digest(content)}", manifest


def digest_of(path: str | Path) -> str:
    """Return the digest of a bundle by its manifest alone. Raises BundleNotFound or BundleCorrupt, as `load_bundle`."""
    return _read_manifest(Path(path).resolve())[0]


def load_bundle(path: str | Path) -> Bundle:
    """Read a bundle and verify every file of it.

    Raises BundleNotFound, or BundleCorrupt that names the file.
    """
    folder = Path(path).resolve()
    digest, manifest = _read_manifest(folder)
    content = {name: _read(folder, name, entry) for name, entry in manifest.files.items()}
    config = _parse(BundleConfig, content[CONFIG], folder / CONFIG)
    if NETWORKS[config.runtime] not in content:
        raise BundleCorrupt(f"{folder / CONFIG} names the runtime {config.runtime}, without {NETWORKS[config.runtime]}")
    return Bundle(
        path=folder,
        digest=digest,
        config=config,
        scaler=_parse(ScalerFile, content[SCALER], folder / SCALER),
        symbol_to_id=_parse(MappingFile, content[MAPPING], folder / MAPPING).symbol_to_id,
        metadata=_decode(_json_object, content[METADATA], folder / METADATA),
        weights=_decode(load_tensors, content[WEIGHTS], folder / WEIGHTS) if WEIGHTS in content else {},
        golden=_decode(Golden.from_bytes, content[GOLDEN], folder / GOLDEN),
        programs={
            runtime: content[NETWORKS[runtime]]
            for runtime in Runtime
            if runtime is not Runtime.TORCH and NETWORKS[runtime] in content
        },
        gates=_parse(Gates, content[GATES], folder / GATES).passed if GATES in content else (),
        reference=_decode(Reference.from_bytes, content[REFERENCE], folder / REFERENCE)
        if REFERENCE in content
        else None,
    )


def _networks(bundle: Bundle) -> dict[str, bytes]:
    """The files that compute, and what the exports among them have passed."""
    files = {NETWORKS[runtime]: program for runtime, program in bundle.programs.items()}
    if bundle.weights:
        files[WEIGHTS] = save_tensors({name: np.ascontiguousarray(x) for name, x in bundle.weights.items()})
    return {**files, **({GATES: _json(Gates(passed=bundle.gates).model_dump(mode="json"))} if bundle.gates else {})}


def write_bundle(bundle: Bundle) -> Bundle:
    """Write a bundle into its folder and return it as read back, with its digest.

    The folder appears whole, verified and on disk, or not at all. Raises FileExistsError when it is there already: a
    bundle never changes.
    """
    content = {
        **_networks(bundle),
        SCALER: _json(bundle.scaler.model_dump()),
        MAPPING: _json(MappingFile(symbol_to_id=dict(bundle.symbol_to_id)).model_dump()),
        CONFIG: _json(bundle.config.model_dump(mode="json")),
        METADATA: _json(bundle.metadata),
        GOLDEN: bundle.golden.to_bytes(),
        **({REFERENCE: bundle.reference.to_bytes()} if bundle.reference else {}),
    }
    entries = {name: ManifestEntry(sha256=_digest(data), bytes=len(data)) for name, data in content.items()}
    manifest = Manifest(format_version=FORMAT_VERSION, files=entries)
    with new_folder(bundle.path) as folder:
        for name, data in {**content, MANIFEST: _json(manifest.model_dump())}.items():
            (folder / name).write_bytes(data)
        written = load_bundle(folder)
    return replace(written, path=bundle.path.resolve())
