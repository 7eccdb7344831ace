"""Where each stage of a variant runs: in this process, or behind a handle. The topology, as the router sees it."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from deployments.autoscaling import Backlog
from deployments.metrics import ModelMetrics
from deployments.node import merged
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
    """A bundle, the stages that compute it, and those of them that are elsewhere."""

    bundle: Bundle
    slot: VariantName
    """The place of its model, see `serve_app.router.slots`."""
    stages: Stages
    remote: Sequence[RemoteStage]
    check_health: Callable[[], None]
    """Raises StageFailed when a model in this process hangs."""

    async def spread(self) -> None:
        """Let every replica elsewhere load the bundle. Raises as `RemoteStage.load`."""
        await asyncio.gather(*(stage.load(self.bundle.digest) for stage in self.remote))

    async def memory(self) -> dict[str, float]:
        """Return the share of memory in use, by node, elsewhere."""
        return merged(await asyncio.gather(*(stage.memory() for stage in self.remote)))


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
        return Loaded(bundle, slot, stages, (), here.check_health)
    application = model_application(slot)
    # Whether it exists is not asked: that would block the event loop, and the application may start after ours.
    model = RemoteStage(
        application, lambda: serve.get_deployment_handle(MODEL, application, _check_exists=False), backlog
    )
    if handles is None:
        return Loaded(bundle, slot, stages_of(bundle, model.run), (model,), _not_here)
    preprocess = RemoteStage("preprocess", lambda: handles.preprocess, backlog)
    strategy = RemoteStage("strategy", lambda: handles.strategy, backlog)
    stages = Stages(preprocess.run, model.run, strategy.run)
    return Loaded(bundle, slot, stages, (preprocess, model, strategy), _not_here)
