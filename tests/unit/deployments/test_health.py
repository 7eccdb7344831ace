"""Ray Serve hears of a forward pass that never comes back, wherever the model is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import pytest
from ray import serve

from deployments import hop
from deployments.bundles import Shelf
from deployments.keys import Keys
from deployments.model import ModelDeployment
from deployments.router import RouterDeployment
from serve_app.config import AppConfig, ModelAppConfig, Topology
from serve_app.errors import StageFailed
from serve_app.model import Bundle
from serve_app.model.golden import golden_batch
from serve_app.model.stage import STUCK_S, Model
from serve_app.router.releases import Release
from tests.factories import PRODUCTION
from tests.unit.hanging import given_up, hanging
from tests.unit.monitor.answers import NOW

LARGE = 64
"""Rows of a batch that is not quick."""


@contextmanager
def stuck(model: Model, bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let a pass of a model hang for too long, while every caller gives up."""
    now = 0.0
    monkeypatch.setattr(model, "_clock", lambda: now)
    monkeypatch.setattr(model, "_quick_rows", 0)
    with hanging(model) as hangs:
        for _ in range(2):
            asyncio.run(given_up(model.run(golden_batch(bundle, LARGE)), hangs))
            now += STUCK_S + 1
        yield


def test_the_replica_of_a_model(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hop, "_held_by_others", AsyncMock(return_value=[]))
    config = ModelAppConfig.model_validate({"variant": "production", "bundle": str(PRODUCTION)})
    replica = ModelDeployment(Shelf.of(str(PRODUCTION)), config)
    asyncio.run(replica.check_health())
    model = cast("Model", replica._stages.now(bundle.digest))
    with stuck(model, bundle, monkeypatch), pytest.raises(StageFailed, match="has not come back"):
        asyncio.run(replica.check_health())


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Model]:
    """The models that are made in this process."""
    models: list[Model] = []
    warm_up = Model.warm_up

    def noted(model: Model, bundle: Bundle, rows: int) -> None:
        models.append(model)
        warm_up(model, bundle, rows)

    monkeypatch.setattr(Model, "warm_up", noted)
    return models


def test_a_router_with_models_of_its_own(bundle: Bundle, made: list[Model], monkeypatch: pytest.MonkeyPatch) -> None:
    context = SimpleNamespace(app_name="signals", replica_tag="router-a")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr("deployments.router._spare_the_collector", lambda: None)
    variants = {"production": {"bundle": str(PRODUCTION)}}
    config = AppConfig.model_validate({"topology": Topology.FUSED, "variants": variants})
    release = Release(production=bundle.digest)
    router = RouterDeployment(config, Shelf.of(str(PRODUCTION)), release, Keys(), NOW)
    router.check_health()
    (model,) = made
    with stuck(model, bundle, monkeypatch), pytest.raises(StageFailed, match="has not come back"):
        router.check_health()
