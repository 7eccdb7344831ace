"""A bundle → a version of a registered model: its files as artefacts, a pyfunc over them, an alias, and its digest."""

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from serve_app.errors import BundleError, RegistryError
from serve_app.model.bundle import Bundle, load_bundle
from serve_app.model.mlflow_registry.fetch import DIGEST_TAG, fetch_model
from serve_app.model.mlflow_registry.store import connected, experiment_id, store_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models import ModelSignature

PYFUNC = Path(__file__).with_name("pyfunc_model.py")
ARTEFACT = "bundle"


@dataclass(frozen=True, slots=True)
class Published:
    """A version of a registered model. `is_new` is False when this digest had been published under the name before."""

    name: str
    version: str
    alias: str
    run_id: str
    digest: str
    is_new: bool


def publish_bundle(
    path: Path, name: str, alias: str, tracking_uri: str | None = None, experiment: str = "signalgraph"
) -> Published:
    """Verify a bundle, log it, register it and set the alias.

    A digest is registered once under one name, and again only when what was logged is not it any more. Raises
    BundleNotFound, BundleCorrupt, or RegistryError when MLflow refuses.
    """
    bundle, uri = load_bundle(path), store_uri(tracking_uri)
    with connected(uri) as client:
        known = _known(client, name, bundle.digest)
    intact = next((one for one in known if _is_intact(f"models:/{name}/{one[0]}", uri)), None)
    with connected(uri) as client:
        version, run_id = intact or _register(client, bundle, name, experiment)
        client.set_registered_model_alias(name, alias, version)
    return Published(name, version, alias, run_id, bundle.digest, intact is None)


def _known(client: "MlflowClient", name: str, digest: str) -> list[tuple[str, str]]:
    found = client.search_model_versions(f"name = '{name}'")
    return [(str(one.version), str(one.run_id)) for one in found if one.tags.get(DIGEST_TAG) == digest]


def _is_intact(uri: str, tracking_uri: str) -> bool:
    """Whether a version is still what was published."""
    with TemporaryDirectory(prefix="signalgraph-check-") as folder:
        try:
            return fetch_model(uri, Path(folder), tracking_uri).bundle is not None
        except (BundleError, RegistryError):
            return False


def _register(client: "MlflowClient", bundle: Bundle, name: str, experiment: str) -> tuple[str, str]:
    import mlflow  # noqa: PLC0415

    tags = {DIGEST_TAG: bundle.digest, "model_version": bundle.version}
    commit = bundle.metadata.get("git_commit")
    tags |= {"git_commit": str(commit)} if commit else {}
    with mlflow.start_run(
        experiment_id=experiment_id(client, experiment), run_name=f"publish {bundle.version}", tags=tags
    ):
        logged = mlflow.pyfunc.log_model(
            name=ARTEFACT,
            python_model=str(PYFUNC),
            artifacts={ARTEFACT: str(bundle.path)},
            signature=_signature(bundle),
            pip_requirements=_requirements(),
        )
        registered = mlflow.register_model(logged.model_uri, name, tags=tags)
        return str(registered.version), str(logged.run_id)


def _signature(bundle: Bundle) -> "ModelSignature":
    import numpy as np  # noqa: PLC0415
    from mlflow.models import ModelSignature  # noqa: PLC0415
    from mlflow.types import Schema, TensorSpec  # noqa: PLC0415

    config = bundle.config
    window = (-1, config.lookback_window, len(config.feature_list))
    inputs: list[Any] = [
        TensorSpec(np.dtype(np.float64), window, "features"),
        TensorSpec(np.dtype(np.int64), (-1,), "asset_ids"),
    ]
    return ModelSignature(Schema(inputs), Schema([TensorSpec(np.dtype(np.float64), (-1,))]))


def _requirements() -> list[str]:
    """What loads it again: this package, and mlflow as it is here."""
    return [f"{name}=={metadata.version(name)}" for name in ("signalgraph", "mlflow")]
