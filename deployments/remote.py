"""A stage on the other side of a handle: Ray's errors become ours, and a replica that died is asked once more."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from grpc import StatusCode
from grpc.aio import AioRpcError
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from deployments.autoscaling import Backlog
from deployments.node import merged
from serve_app.errors import StageFailed, StageUnavailable

LOAD_TIMEOUT_S = 60.0
"""For all replicas to load a bundle."""
MEMORY_TIMEOUT_S = 5.0
"""For all replicas to say how full their nodes are."""

log = logging.getLogger(__name__)


class _Handles:
    """The two ways in which a stage is called, made once: Ray Serve makes a new handle for every `handle.method`.

    Batches are ours and importable everywhere, so plain pickle does; cloudpickle, Ray Serve's default, asks Python
    about every class in them.
    """

    def __init__(self, handle: DeploymentHandle[Any]) -> None:
        self.all = handle
        self.run = handle.options(method_name="run", request_serialization="pickle", response_serialization="pickle")


class RemoteStage:
    """Calls `run` of a deployment, and says with every batch what else there is to do.

    The handle is made at the first call, inside the replica that uses it.
    """

    def __init__(
        self, name: str, make_handle: Callable[[], DeploymentHandle[Any]], backlog: Callable[[], Backlog]
    ) -> None:
        self._name = name
        self._make_handle = make_handle
        self._backlog = backlog
        self._made: _Handles | None = None

    @property
    def _handles(self) -> _Handles:
        if self._made is None:
            self._made = _Handles(self._make_handle())
        return self._made

    async def run(self, batch: Any) -> Any:
        """Send a batch and return the stage's answer.

        Raises StageUnavailable when no replica answers, StageFailed when the batch or its answer is too large for one
        message, and whatever the stage itself raised.
        """
        try:
            return await self._call(batch)
        except RayActorError:
            # The replica died with our batch. Stages have no side effects, so another one may do it again.
            return await self._call_again(batch)

    async def _call_again(self, batch: Any) -> Any:
        try:
            return await self._call(batch)
        except RayActorError as error:
            raise self._unavailable(error) from error

    async def _call(self, batch: Any) -> Any:
        response = self._handles.run.remote(batch, self._backlog())
        try:
            return await response
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                # Nobody cancelled us: the other side did, and sent its cancellation back as an answer.
                raise self._unavailable(error) from error
            response.cancel()  # type: ignore[no-untyped-call]  # an actor call goes on by itself when nobody awaits it any more
            raise
        except (RayActorError, RayTaskError):
            raise  # for `run` to try again; or what the stage raised, for the pipeline to bisect
        except (BackPressureError, DeploymentUnavailableError, RayServeException, RayError, AioRpcError) as error:
            if _is_too_large(error):
                raise self._too_large(len(batch), error) from error
            raise self._unavailable(error) from error

    async def load(self, digest: str) -> None:
        """Let every replica hold a bundle. Raises StageUnavailable, or what the first raises that cannot."""
        for answer in await self._all("load", digest, timeout_s=LOAD_TIMEOUT_S):
            # A replica that died meanwhile loads what the others hold when it is back.
            if isinstance(answer, RayTaskError):
                raise answer.cause  # without the trace that Ray adds, which names addresses and files
            if isinstance(answer, Exception) and not isinstance(answer, RayActorError):
                raise answer

    async def memory(self) -> dict[str, float]:
        """Return the share of memory in use, by node, of the replicas that say so in time; see `Hop.memory`."""
        try:
            answers = await self._all("memory", timeout_s=MEMORY_TIMEOUT_S)
        except StageUnavailable:  # the log has it
            return {}
        return merged(one for one in answers if isinstance(one, dict))

    async def _all(self, method: str, *args: str, timeout_s: float) -> list[Any]:
        """Ask every replica; what one raises stands in its place. Raises StageUnavailable when they take too long."""
        try:
            asked = self._handles.all.broadcast(method, *args)
            answers: list[Any] = await asked.results_async(timeout_s=timeout_s, return_exceptions=True)
        except (TimeoutError, RayError, RayServeException, AioRpcError) as error:
            raise self._unavailable(error) from error
        return answers

    def _too_large(self, rows: int, error: BaseException) -> StageFailed:
        """Say which stage, for the pipeline to try the batch in parts."""
        log.warning("%s: %s; RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH allows more", self._name, error)
        return StageFailed(f"a batch of {rows} rows is too large for one message to or from {self._name}")

    def _unavailable(self, error: BaseException) -> StageUnavailable:
        """Say which stage; what Ray says of it (addresses, traces) goes to the log only."""
        log.error("%s does not answer: %s", self._name, error)
        return StageUnavailable(f"{self._name} does not answer ({type(error).__name__})")


def _is_too_large(error: BaseException) -> bool:
    """Whether gRPC refused a message for its size: on the way to the replica, or on the way back."""
    if not isinstance(error, AioRpcError) or error.code() is not StatusCode.RESOURCE_EXHAUSTED:
        return False
    return "message larger than max" in (error.details() or "")
