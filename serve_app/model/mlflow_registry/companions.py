"""What belongs to a model and lies beside it, in its folder or anywhere in its run: scaler, asset map, feature list."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.errors import BundleError, RegistryError
from serve_app.model.foreign.texts import parse_feature_list
from serve_app.model.mlflow_registry.store import download

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONFIG = "config.json"
"""Of many things: it counts when there is a feature list in it."""
COMPANIONS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "scaler": (("scalers.joblib", "scaler.joblib", "scaler.json", "scalers.json"),),
    "asset_map": (("asset_id_mapping.json",),),
    "feature_list": (("feature_list.json", "feature_list.txt"), (CONFIG,)),
}
"""Role → names of its file; those of the second group count where there is none of the first."""


def companions(
    client: "MlflowClient", folder: Path, run_id: str | None, into: Path, given: Collection[str]
) -> dict[str, Path]:
    """Return the file of each role that is not given and is there, the model's own folder first, then its run.

    Raises RegistryError when different files could be it.
    """
    own = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    chosen = _chosen(own, COMPANIONS.keys() - set(given))
    missing = COMPANIONS.keys() - set(given) - chosen.keys()
    return chosen | _chosen(_of_run(client, run_id, missing, into), missing) if run_id and missing else chosen


def _chosen(files: Mapping[str, Path], roles: Collection[str]) -> dict[str, Path]:
    found = {role: _only(role, files) for role in roles}
    return {role: path for role, path in found.items() if path is not None}


def _only(role: str, files: Mapping[str, Path]) -> Path | None:
    """Return the file of a role; copies of one another are one file."""
    for names in COMPANIONS[role]:
        found = {shown: path for shown, path in sorted(files.items()) if path.name in names and _may_be(path)}
        if len({path.read_bytes() for path in found.values()}) > 1:
            raise RegistryError(
                f"there are several files for the {role}: {', '.join(found)}; download the right one and give it with"
                f" --{role.replace('_', '-')}"
            )
        if found:
            return next(iter(found.values()))
    return None


def _may_be(path: Path) -> bool:
    if path.name != CONFIG:
        return True
    try:
        return bool(parse_feature_list(path.read_bytes()))
    except BundleError:
        return False


def _of_run(client: "MlflowClient", run_id: str, roles: Collection[str], into: Path) -> dict[str, Path]:
    """Download what bears one of the names, each into a folder of its own, by its path in the run."""
    wanted = {name for role in roles for names in COMPANIONS[role] for name in names}
    paths = [path for path in _artefact_paths(client, run_id, None) if path.rsplit("/", 1)[-1] in wanted]
    return {path: download(f"runs:/{run_id}/{path}", into / str(number)) for number, path in enumerate(paths)}


def _artefact_paths(client: "MlflowClient", run_id: str, folder: str | None) -> Iterator[str]:
    for entry in client.list_artifacts(run_id, folder):
        if entry.is_dir:
            yield from _artefact_paths(client, run_id, entry.path)
        else:
            yield entry.path
