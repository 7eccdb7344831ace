"""From a run or from the registry: a bundle that was published, or the files of a model that was trained elsewhere."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from serve_app.errors import BundleCorrupt, BundleError, RegistryError
from serve_app.model.bundle import MANIFEST, load_bundle
from serve_app.model.foreign.convert import Sources
from serve_app.model.mlflow_registry.companions import companions
from serve_app.model.mlflow_registry.model_file import model_file
from serve_app.model.mlflow_registry.store import connected, download, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST_TAG = "bundle_digest"
RUN = re.compile(r"runs:/([^/]+)/(.+)")
MODEL = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/([^/@]+))")
NOT_SET = {"None", ""}
"""What MLflow keeps for a parameter that is None."""
AGAIN = "publish it again from where it was built"


@dataclass(frozen=True, slots=True)
class RunFiles:
    """What was downloaded: a bundle of ours, or the files of a foreign model. Exactly one of the first two is there."""

    sources: Sources | None
    bundle: Path | None
    params: Mapping[str, str]
    """Of the run, those that are set."""
    run_id: str | None
    digest: str | None = None
    """Of the bundle, as the registry or the run knows it; None when neither does."""


def fetch(uri: str, into: Path, tracking_uri: str | None = None, given: Collection[str] = ()) -> RunFiles:
    """Download `runs:/<run id>/<artifact path>`, `models:/<name>@<alias>` or `models:/<name>/<version>`.

    Roles that are `given` (`scaler`, `asset_map`, `feature_list`) are not looked for.

    Raises:
        RegistryError: no such thing, a store that does not answer, files that nobody can tell apart, or a bundle that
            is not the one that was published.
        BundleCorrupt: a file of a published bundle was changed.
    """
    run = RUN.fullmatch(uri)
    return fetch_run(run[1], run[2], into, tracking_uri, given) if run else fetch_model(uri, into, tracking_uri, given)


def fetch_run(
    run_id: str, artifact_path: str, into: Path, tracking_uri: str | None = None, given: Collection[str] = ()
) -> RunFiles:
    """Download an artefact of a run, and the scaler, the map and the feature list that lie beside it.

    Raises as `fetch` does.
    """
    with connected(store_uri(tracking_uri)) as client:
        digest = client.get_run(run_id).data.tags.get(DIGEST_TAG)
        folder = download(f"runs:/{run_id}/{artifact_path}", into / "model")
        return _files(client, folder, into, run_id, digest, given)


def fetch_model(uri: str, into: Path, tracking_uri: str | None = None, given: Collection[str] = ()) -> RunFiles:
    """Download a version of a registered model, and from its run what it lacks. Raises as `fetch` does."""
    model = MODEL.fullmatch(uri)
    if not model:
        raise RegistryError(f"{uri!r} is neither runs:/<run id>/<path> nor models:/<name>@<alias> nor models:/<name>/3")
    name, alias, version = model.groups()
    if version is not None and not version.isdigit():
        raise RegistryError(
            f"{uri}: MLflow has no stages any more, aliases take their place; ask for models:/{name}@{version.lower()}"
        )
    with connected(store_uri(tracking_uri)) as client:
        found = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
        run_id = found.run_id or None
        tags = {**(client.get_run(run_id).data.tags if run_id else {}), **found.tags}
        folder = download(f"models:/{name}/{found.version}", into / "model")
        return _files(client, folder, into, run_id, tags.get(DIGEST_TAG), given)


def _files(
    client: "MlflowClient", path: Path, into: Path, run_id: str | None, digest: str | None, given: Collection[str]
) -> RunFiles:
    logged: dict[str, str] = dict(client.get_run(run_id).data.params) if run_id else {}
    params = {name: value for name, value in logged.items() if value not in NOT_SET}
    manifests = sorted(path.rglob(MANIFEST)) if path.is_dir() else []
    # What was published as a bundle is never read as anything else, whatever became of its manifest.
    if digest is not None or len(manifests) == 1:
        return RunFiles(None, _bundle(manifests, digest), params, run_id, digest)
    model = model_file(path, into / "whole")
    folder = path if path.is_dir() else path.parent
    beside = companions(client, folder, run_id, into / "beside", given)
    return RunFiles(Sources(model, **beside), None, params, run_id)


def _bundle(manifests: Sequence[Path], published: str | None) -> Path:
    if len(manifests) != 1:
        raise RegistryError(
            f"the bundle {published} was published, and here are {len(manifests)} files {MANIFEST}: ask for its whole"
            f" folder; if this is it, it was changed afterwards: {AGAIN}"
        )
    folder = manifests[0].parent
    try:
        digest = load_bundle(folder).digest
    except BundleError as error:
        raise BundleCorrupt(f"the bundle that was fetched is spoilt: {error}; {AGAIN}") from error
    if published not in {None, digest}:
        raise RegistryError(
            f"the bundle is {digest}, and {published} was published: its files were changed afterwards; {AGAIN}"
        )
    return folder
