"""A training run in MLflow: parameters, losses by epoch, metrics, and the bundle. It ends as what it was."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serve_app.errors import RegistryError
from serve_app.model.mlflow_registry.fetch import DIGEST_TAG
from serve_app.model.mlflow_registry.store import connected, experiment_id, store_uri

BUNDLE = "bundle"
"""Artifact path of the bundle."""


@dataclass(frozen=True, slots=True)
class TrackedRun:
    """A run that is going on."""

    uri: str
    run_id: str

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters; nested ones under dotted names."""
        with connected(self.uri) as client:
            for name, value in _flat(values, "."):
                client.log_param(self.run_id, name, value)

    def metrics(self, values: Mapping[str, Any], step: int = 0) -> None:
        """Log what is a number; nested ones under names joined by `_`."""
        numbers = {name: float(x) for name, x in _flat(values, "_") if isinstance(x, int | float)}
        with connected(self.uri) as client:
            for name, value in numbers.items():
                client.log_metric(self.run_id, name, value, step=step)

    def bundle(self, folder: Path, digest: str) -> None:
        """Log the files of a bundle, and its digest."""
        with connected(self.uri) as client:
            client.log_artifacts(self.run_id, str(folder), BUNDLE)
            client.set_tag(self.run_id, DIGEST_TAG, digest)


@contextmanager
def tracked_run(name: str, tracking_uri: str | None, experiment: str) -> Iterator[TrackedRun]:
    """Open a run for as long as the block runs: FINISHED after it, FAILED or KILLED when the block does not end well.

    Raises RegistryError before the block when the store does not answer.
    """
    uri = store_uri(tracking_uri)
    with connected(uri) as client:
        run_id = client.create_run(experiment_id(client, experiment), run_name=name).info.run_id
    try:
        yield TrackedRun(uri, run_id)
    except BaseException as error:
        with suppress(RegistryError):  # what ended the block is what the caller must hear of
            _end(uri, run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    _end(uri, run_id, "FINISHED")


def _end(uri: str, run_id: str, status: str) -> None:
    with connected(uri) as client:
        client.set_terminated(run_id, status)


def _flat(values: Mapping[str, Any], joint: str, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, joint, f"{prefix}{name}{joint}")
        else:
            yield f"{prefix}{name}", value
