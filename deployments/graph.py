"""The only place that wires: configuration in, Ray Serve applications out.

This module must not import `annotations` from `__future__`: Ray Serve reads the builders' annotations at run time, and
would hand them plain dicts.
"""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from deployments.bundles import BundleRef, Shelf
from deployments.keys import keys_of
from deployments.model import ModelDeployment
from deployments.preprocess import PreprocessDeployment
from deployments.router import RouterDeployment
from deployments.stages import MODEL
from deployments.strategy import StrategyDeployment
from serve_app.config import AppConfig, ModelAppConfig, Topology
from serve_app.journal import from_here
from serve_app.router.releases import Release
from serve_app.types import VariantName

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
    # of POSTs is turned away before any of it is read (`deployments.ingress`). GETs and the dashboard's streams have
    # places among these too: as many requests as there are of those may wait in Ray's queue.
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
    keys = keys_of(config.router.auth, os.environ)
    config, built_at = _from_anywhere(config), datetime.now(UTC)
    router = _deploy(serve.ingress()(RouterDeployment), "router", _ROUTER)
    if config.topology is not Topology.STAGED:
        return router.bind(config, shelf, seed, keys, built_at)
    preprocess = _deploy(PreprocessDeployment, "preprocess", _STAGE).bind(shelf)
    strategy = _deploy(StrategyDeployment, "strategy", _STAGE).bind(shelf)
    return router.bind(config, shelf, seed, keys, built_at, preprocess, strategy)


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
