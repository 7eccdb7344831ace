"""Which tracking store, and how it is spoken to: quietly, with credentials from the environment only."""

import contextlib
import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import SplitResult, parse_qs, urlsplit

from serve_app.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient

DEFAULT_STORE = "sqlite:///mlflow.db"
"""In the current folder, where `mlflow ui` looks too. Artefacts lie beside it, in `mlruns`."""
TRACKING_URI = "MLFLOW_TRACKING_URI"
CREDENTIALS = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
_SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # A server that does not answer is said to within seconds, not after minutes.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
_URIS = (TRACKING_URI, "MLFLOW_REGISTRY_URI")
_LOGGERS = ("mlflow", "alembic")


def store_uri(given: str | None) -> str:
    """Return the tracking URI: the one given, the environment's, or the local default.

    Raises RegistryError for one with a password in it, which would end up in histories and logs; it is not repeated.
    """
    uri = given or os.environ.get(TRACKING_URI) or DEFAULT_STORE
    parts = _split(uri)
    if _has_password(parts):
        server = parts.scheme in {"http", "https"}
        how = "" if server else "what the database's driver reads, such as PGPASSWORD; or for a server in front of it "
        raise RegistryError(
            f"the tracking URI of {parts.hostname} has a password in it; take it out, change it, and set"
            f" {how}{CREDENTIALS}"
        )
    return uri


def _split(uri: str) -> SplitResult:
    try:
        parts = urlsplit(uri)
        if parts.scheme in {"http", "https"}:
            parts.port  # noqa: B018  raises for what is none, such as a piece of a password
    except ValueError:
        # From nothing: the reason repeats what was given, which may be a password with a `/` in it.
        raise RegistryError(
            "the tracking URI cannot be read; it must be like http://host:5000 or sqlite:///mlflow.db, and a password"
            f" does not belong in it: set {CREDENTIALS}"
        ) from None
    return parts


def _has_password(parts: SplitResult) -> bool:
    return parts.password is not None or any("password" in key.lower() for key in parse_qs(parts.query))


@contextlib.contextmanager
def connected(uri: str) -> Iterator["MlflowClient"]:
    """Give a client of a store. Inside the block mlflow speaks to that store, and says nothing of its own.

    Raises RegistryError for whatever mlflow raises.
    """
    with _environment(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
        from requests.exceptions import RequestException  # noqa: PLC0415
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

        try:
            with _silent(), _speaking_to(uri) as client:
                yield client
        except (MlflowException, RequestException, SQLAlchemyError, ImportError, OSError) as error:
            raise RegistryError(f"MLflow at {uri}: {_said(error)}") from error


@contextlib.contextmanager
def _speaking_to(uri: str) -> Iterator["MlflowClient"]:
    """Let mlflow's own functions use a store inside the block, and what they used before after it."""
    import mlflow  # noqa: PLC0415

    set_tracking, set_registry = cast(Any, mlflow.set_tracking_uri), cast(Any, mlflow.set_registry_uri)
    before, environment = mlflow.get_tracking_uri(), {name: os.environ.get(name) for name in _URIS}
    set_tracking(uri)
    set_registry(uri)
    try:
        yield mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    finally:
        # They are kept in the environment too, which subprocesses inherit.
        set_tracking(None)
        set_registry(None)
        for name, value in environment.items():
            os.environ.pop(name, None)
            os.environ |= {} if value is None else {name: value}
        if mlflow.get_tracking_uri() != before:
            set_tracking(before)


def download(uri: str, into: Path) -> Path:
    """Download an artefact from the store of the block, and return where its file or folder is."""
    import mlflow  # noqa: PLC0415

    into.mkdir(parents=True, exist_ok=True)
    return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(into)))


def experiment_id(client: "MlflowClient", name: str) -> str:
    """Return the id of an experiment, which is made if it is not there."""
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found is not None else client.create_experiment(name)


def _said(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    added = {name: value for name, value in _SETTINGS.items() if name not in os.environ}
    os.environ |= added
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with (
            Path(os.devnull).open("w") as nothing,
            contextlib.redirect_stdout(nothing),
            contextlib.redirect_stderr(nothing),
        ):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
