"""Where each stage of a variant runs: in this process, or behind a handle. The topology, as the router sees it."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.autoscaling import Backlog
from deployments.metrics import ModelMetrics
from deployments.remote import RemoteStage
from serve_app.config import AppConfig, Topology
from serve_app.model import Bundle
from serve_app.pipeline import ByDigest, Stages, model_of, stages_of
from serve_app.types import VariantName

MODEL = "model"


def model_application(variant: VariantName) -> str:
    """Return the name of the application that serves a variant's model."""
    return f"{MODEL}-{variant}"


@dataclass(frozen=True, slots=True)
class StageHandles:
    """The stages that both variants share, where they are deployments of their own."""

    preprocess: DeploymentHandle[Any]
    strategy: DeploymentHandle[Any]


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle, the stages that compute it, and what lets all replicas of remote ones load it."""

    bundle: Bundle
    slot: VariantName
    """The place of its model, see `serve_app.router.slots`."""
    stages: Stages
    spread: Callable[[], Awaitable[object]]
    check_health: Callable[[], None]
    """Raises StageFailed when a model in this process hangs."""


async def _nowhere() -> None:
    """There is nobody else to load it."""


def _not_here() -> None:
    """Its model is in another process, which looks after it."""


def make_stages(
    config: AppConfig,
    slot: VariantName,
    bundle: Bundle,
    handles: StageHandles | None,
    backlog: Callable[[], Backlog],
) -> Loaded:
    """Return the stages of one bundle, wherever the topology puts them; remote ones hear the `backlog`.

    `slot` is the application that a model of its own is in, see `serve_app.router.slots`.
    """
    if config.topology is Topology.FUSED:
        here = model_of(bundle, config.model, ModelMetrics(slot).out_of_memory)
        stages = stages_of(bundle, ByDigest({bundle.digest: here}).run)
        return Loaded(bundle, slot, stages, _nowhere, here.check_health)
    application = model_application(slot)
    # Whether it exists is not asked: that would block the event loop, and the application may start after ours.
    model = RemoteStage(
        application, lambda: serve.get_deployment_handle(MODEL, application, _check_exists=False), backlog
    )
    if handles is None:
        return Loaded(bundle, slot, stages_of(bundle, model.run), lambda: model.load(bundle.digest), _not_here)
    preprocess = RemoteStage("preprocess", lambda: handles.preprocess, backlog)
    strategy = RemoteStage("strategy", lambda: handles.strategy, backlog)
    remote = (preprocess, model, strategy)
    return Loaded(
        bundle,
        slot,
        Stages(preprocess.run, model.run, strategy.run),
        lambda: asyncio.gather(*(stage.load(bundle.digest) for stage in remote)),
        _not_here,
    )
