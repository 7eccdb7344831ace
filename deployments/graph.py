"""The only place that wires: configuration in, Ray Serve applications out.

This module must not import `annotations` from `__future__`: Ray Serve reads the builders' annotations at run time, and
would hand them plain dicts.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from deployments.bundles import BundleRef, Shelf
from deployments.model import ModelDeployment
from deployments.preprocess import PreprocessDeployment
from deployments.router import Keys, RouterDeployment
from deployments.stages import MODEL
from deployments.strategy import StrategyDeployment
from serve_app.api import CONTROL_KEY, hash_key
from serve_app.config import AppConfig, Auth, ModelAppConfig, Topology
from serve_app.errors import ConfigError
from serve_app.journal import from_here
from serve_app.router.releases import Release
from serve_app.types import VariantName

API_KEYS = "SIGNALGRAPH_API_KEYS"
"""Environment variable: the keys that may ask, separated by commas."""

WEBHOOK_SECRET = "SIGNALGRAPH_WEBHOOK_SECRET"  # noqa: S105  its name
"""Environment variable: what alerts to the webhook are signed with."""

_COMMON: dict[str, Any] = {
    # A replica that refuses to start (a corrupt bundle, a failed parity check) would refuse again.
    "max_constructor_retry_count": 1,
    "graceful_shutdown_timeout_s": 10,
    "health_check_period_s": 5,
    "health_check_timeout_s": 10,
    # Start the new replica before the old one stops.
    "max_surge_percent": 100,
}
_ROUTER: dict[str, Any] = {
    **_COMMON,
    # Requests: a few full batches. Each more is another millisecond of Python that all of them wait for, so a flood
    # is turned away before any of it is read (`deployments.ingress`), and only GETs ever wait in Ray's queue.
    "max_ongoing_requests": 320,
    "max_queued_requests": 64,
    "backpressure_config": {"status_code": 429, "retry_after_s": 1},
}
_STAGE: dict[str, Any] = {
    **_COMMON,
    # Batches, not requests: each router keeps one in flight per bundle, so these hold for dozens of routers.
    "max_ongoing_requests": 16,
    "max_queued_requests": 64,
}


def _deploy(stage: type, name: str, options: dict[str, Any]) -> Deployment:
    """Make a deployment of a plain class; the YAML's `deployments` section has the last word on its options."""
    decorate = serve.deployment(name=name, **options)
    return decorate(stage)


def api_key_hashes(auth: Auth, environment: str | None) -> tuple[str, ...]:
    """Return the hashes of the keys that may ask. Raises ConfigError when keys are needed and there are none."""
    if auth is Auth.NONE:
        return ()
    keys = [key.strip() for key in (environment or "").split(",") if key.strip()]
    if not keys:
        raise ConfigError(f"router.auth is api_keys, but {API_KEYS} is empty; set it to the keys that may ask")
    return tuple(hash_key(key) for key in keys)


def control_key_hash(environment: Mapping[str, str]) -> str | None:
    """Return the hash of the key that may change releases, or None when nobody may."""
    key = environment.get(CONTROL_KEY, "").strip()
    return hash_key(key) if key else None


def build_app(config: AppConfig) -> Application:
    """Build the application that answers HTTP: the router, and in the staged topology preprocess and strategy."""
    bundles = {name: BundleRef.of(variant.bundle) for name, variant in config.variants.configured().items()}
    shelf = Shelf(tuple(bundles.values()))
    candidate = bundles.get(VariantName.CANDIDATE)
    seed = Release(
        production=bundles[VariantName.PRODUCTION].digest,
        candidate=candidate.digest if candidate else None,
        assignment=config.router.assignment,
    )
    keys = Keys(
        api_key_hashes(config.router.auth, os.environ.get(API_KEYS)),
        control_key_hash(os.environ),
        os.environ.get(WEBHOOK_SECRET),
    )
    config = _from_anywhere(config)
    router = _deploy(serve.ingress()(RouterDeployment), "router", _ROUTER)
    if config.topology is not Topology.STAGED:
        return router.bind(config, shelf, seed, keys)
    preprocess = _deploy(PreprocessDeployment, "preprocess", _STAGE).bind(shelf)
    strategy = _deploy(StrategyDeployment, "strategy", _STAGE).bind(shelf)
    return router.bind(config, shelf, seed, keys, preprocess, strategy)


def _from_anywhere(config: AppConfig) -> AppConfig:
    """Return the configuration with the files that it names found from the root: replicas run in other folders."""
    monitor, journal = config.monitor, config.journal
    if monitor.log:
        log = monitor.log.model_copy(update={"folder": str(Path(monitor.log.folder).absolute())})
        monitor = monitor.model_copy(update={"log": log})
    if journal:
        found = {"url": from_here(journal.url), "spool": str(Path(journal.spool).absolute())}
        journal = journal.model_copy(update=found)
    return config.model_copy(update={"monitor": monitor, "journal": journal})


def build_model(config: ModelAppConfig) -> Application:
    """Build the application that serves the model of one variant."""
    return _deploy(ModelDeployment, MODEL, _STAGE).bind(Shelf.of(config.bundle), config)
