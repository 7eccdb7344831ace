"""From a run or from the registry: a bundle that was published, or the files of a model that was trained elsewhere."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from serve_app.errors import RegistryError
from serve_app.model.bundle import MANIFEST, load_bundle
from serve_app.model.foreign.convert import Sources
from serve_app.model.mlflow_registry.store import connected, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST_TAG = "bundle_digest"
FLAVOURS = {"pytorch": ("model_data", "data", "model.pth"), "onnx": ("data", "model.onnx", "")}
"""Flavour of an MLmodel → the key of its data, what that is by default, and the file in it."""
SUFFIXES = (".pt", ".pth", ".ts", ".onnx", ".safetensors")
COMPANIONS: Mapping[str, tuple[str, ...]] = {
    "scaler": ("scalers.joblib", "scaler.joblib", "scaler.json", "scalers.json"),
    "asset_map": ("asset_id_mapping.json",),
    "feature_list": ("feature_list.json", "feature_list.txt"),
}
"""Role → names of the file, the first that is there counts."""
RUN = re.compile(r"runs:/([^/]+)/(.+)")
MODEL = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))")


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What was downloaded: a bundle of ours, or the files of a foreign model. Exactly one of the first two is there."""

    sources: Sources | None
    bundle: Path | None
    params: Mapping[str, str]
    """Of the run."""
    run_id: str | None
    digest: str | None = None
    """Of the bundle, as the registry knows it."""


def fetch(uri: str, into: Path, tracking_uri: str | None = None) -> RunFiles:
    """Download `runs:/<run id>/<artifact path>`, `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Raises:
        RegistryError: no such thing, a store that does not answer, files that nobody can tell apart, or a bundle that
            is not the one that was published.
        BundleCorrupt: a file of a published bundle was changed.
    """
    run, model = RUN.fullmatch(uri), MODEL.fullmatch(uri)
    if run:
        return fetch_run(run[1], run[2], into, tracking_uri)
    if not model:
        raise RegistryError(f"{uri!r} is neither runs:/<run id>/<path> nor models:/<name>@<alias> nor models:/<name>/3")
    name, alias, version = model.groups()
    if version is not None and not version.isdigit():
        raise RegistryError(
            f"{uri}: MLflow has no stages any more, aliases take their place; ask for models:/{name}@{version.lower()}"
        )
    with connected(store_uri(tracking_uri)) as client:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        folder = _download(f"models:/{name}/{found.version}", into / "model")
        return _files(client, folder, into, found.run_id or None, found.tags.get(DIGEST_TAG))


def fetch_run(run_id: str, artifact_path: str, into: Path, tracking_uri: str | None = None) -> RunFiles:
    """Download an artefact of a run, and the scaler, the map and the feature list that lie beside it.

    Raises as `fetch` does.
    """
    with connected(store_uri(tracking_uri)) as client:
        tags = client.get_run(run_id).data.tags
        folder = _download(f"runs:/{run_id}/{artifact_path}", into / "model")
        return _files(client, folder, into, run_id, tags.get(DIGEST_TAG))


def _download(uri: str, into: Path) -> Path:
    import mlflow  # noqa: PLC0415

    into.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))


def _files(client: "MlflowClient", path: Path, into: Path, run_id: str | None, digest: str | None) -> RunFiles:
    params: dict[str, str] = dict(client.get_run(run_id).data.params) if run_id else {}
    manifests = sorted(path.rglob(MANIFEST)) if path.is_dir() else []
    if len(manifests) == 1:
        bundle = manifests[0].parent
        _check_digest(bundle, digest)
        return RunFiles(None, bundle, params, run_id, digest)
    model = _model_file(path)
    own = path if path.is_dir() else path.parent
    beside = {role: _in_folder(own, names) for role, names in COMPANIONS.items()}
    missing = {role: names for role, names in COMPANIONS.items() if beside[role] is None}
    if run_id and missing:
        beside |= _in_run(client, run_id, missing, into / "beside")
    return RunFiles(Sources(model, **beside), None, params, run_id)


def _check_digest(folder: Path, published: str | None) -> None:
    digest = load_bundle(folder).digest
    if published is not None and digest != published:
        raise RegistryError(
            f"the bundle is {digest}, and {published} was published: its files were changed afterwards; publish it"
            " again from where it was built"
        )


def _model_file(path: Path) -> Path:
    """Return the file of the model: the one given, the one that MLmodel names, or the only one that can be it."""
    if path.is_file():
        return path
    named = _of_flavour(path)
    if named is not None:
        return named
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(found) != 1:
        some = ", ".join(str(file.relative_to(path)) for file in found[:5]) or "no such file"
        raise RegistryError(
            f"{path.name} must hold one model file ({', '.join(SUFFIXES)}) and holds {some}; name the file itself"
        )
    return found[0]


def _of_flavour(folder: Path) -> Path | None:
    document = folder / "MLmodel"
    if not document.is_file():
        return None
    flavours: dict[str, Any] = (yaml.safe_load(document.read_text()) or {}).get("flavors", {})
    for flavour, (key, default, file) in FLAVOURS.items():
        if flavour not in flavours:
            continue
        path = (folder / str(flavours[flavour].get(key, default)) / file).resolve()
        if path.is_file() and path.is_relative_to(folder.resolve()):
            return path
        raise RegistryError(
            f"the MLmodel of {folder.name} is of flavour {flavour} and names no {file or default} here; log the model"
            " with serialization_format='pickle', or its state dict as a file"
        )
    return None


def _in_folder(folder: Path, names: Iterable[str]) -> Path | None:
    return next((found for name in names for found in sorted(folder.rglob(name))), None)


def _in_run(
    client: "MlflowClient", run_id: str, roles: Mapping[str, tuple[str, ...]], into: Path
) -> dict[str, Path | None]:
    paths = list(_artifact_paths(client, run_id, None))
    chosen: dict[str, Path | None] = {}
    for role, names in roles.items():
        found = [path for path in paths if path.rsplit("/", 1)[-1] in names]
        if len(found) > 1:
            raise RegistryError(
                f"run {run_id} has several files for the {role}: {', '.join(found)}; download one and give it with"
                f" --{role.replace('_', '-')}"
            )
        chosen[role] = _download(f"runs:/{run_id}/{found[0]}", into / role) if found else None
    return chosen


def _artifact_paths(client: "MlflowClient", run_id: str, folder: str | None) -> Iterable[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _artifact_paths(client, run_id, entry.path)
        else:
            yield entry.path
