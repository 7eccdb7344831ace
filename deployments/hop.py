"""A stage that is a deployment of its own: the other end of a `RemoteStage`."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Generic

from ray import serve
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.autoscaling import Backlog, Demand
from deployments.bundles import Held, Shelf
from deployments.metrics import HopMetrics
from deployments.node import memory_of_node
from serve_app.errors import StageUnavailable
from serve_app.model import Bundle
from serve_app.pipeline import BatchT_co, BatchT_contra, Stage

JOIN_TIMEOUT_S = 1.0
"""How long a new replica waits for others to say what they hold; the first one of all waits in vain."""

log = logging.getLogger(__name__)


class Hop(Generic[BatchT_contra, BatchT_co]):
    """Holds a stage for each bundle, counts rows, and says how many are to come.

    What the graph was built on is there before the replica is; so is what other replicas hold by then. Any other
    bundle is found on the shelf when the first batch for it comes.
    """

    def __init__(self, shelf: Shelf, make: Callable[[Bundle], Stage[BatchT_contra, BatchT_co]]) -> None:
        """`make` makes the stage of a bundle; what it raises for one that the graph was built on ends the replica."""
        self._demand = Demand()
        self._metrics = HopMetrics()
        self._stages = Held(shelf, make)
        # Ray Serve constructs replicas inside an event loop, in which another one may not run.
        with ThreadPoolExecutor(1) as pool:
            list(pool.map(self._stages.load, [ref.digest for ref in shelf.refs]))
        self._joined = False

    async def check_health(self) -> None:
        """Ray Serve asks for the first time before the replica gets requests: then it loads what others hold."""
        if not self._joined:
            self._joined = True
            for digest in await _held_by_others():
                await self._join(digest)

    async def _join(self, digest: str) -> None:
        try:
            await self._stages.fetch(digest)
        except Exception:
            log.exception("%s is not loaded, and will be tried again when it is needed", digest)

    async def run(self, batch: BatchT_contra, backlog: Backlog) -> BatchT_co:
        """Hand a batch to the stage of its bundle.

        Raises StageUnavailable when there is none, and what the stage raises.
        """
        self._demand.hear(backlog)
        self._metrics.called(len(batch))
        stage = self._stages.now(batch.digest) or await self._fetched(batch.digest)
        return await stage.run(batch)

    async def _fetched(self, digest: str) -> Stage[BatchT_contra, BatchT_co]:
        try:
            return await self._stages.fetch(digest)
        except Exception as error:
            log.exception("there is no stage for %s", digest)
            raise StageUnavailable(f"bundle {digest} cannot be loaded ({type(error).__name__})") from error

    async def load(self, digest: str) -> None:
        """Hold the stage of a bundle from now on. Raises what keeps it from being made."""
        await self._stages.fetch(digest)

    async def held(self) -> list[str]:
        """Return the digests of the bundles that there is a stage for."""
        return list(self._stages)

    async def memory(self) -> dict[str, float]:
        """Return how much of the memory of this replica's node is in use."""
        return memory_of_node()

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Tell Ray Serve what `deployments.autoscaling.ScaleByRows` scales on."""
        return self._demand.stats()


async def _held_by_others() -> list[str]:
    """Return what the other replicas of this deployment hold, the longest unused first; nothing when none answers."""
    here = serve.get_replica_context()
    others = serve.get_deployment_handle(here.deployment, here.app_name, _check_exists=False)
    try:
        held = others.broadcast("held")
        answers: list[Any] = await held.results_async(timeout_s=JOIN_TIMEOUT_S, return_exceptions=True)
    except (TimeoutError, DeploymentUnavailableError):
        return []
    return list(dict.fromkeys(digest for answer in answers if isinstance(answer, list) for digest in answer))
