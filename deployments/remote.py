"""A stage on the other side of a handle: Ray's errors become ours, and a replica that died is asked once more."""

from collections.abc import Callable
from typing import Any

from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle

from serve_app.errors import StageUnavailable


class RemoteStage:
    """Calls `run` of a deployment. The handle is made at the first call: the application may start after ours."""

    def __init__(self, name: str, make_handle: Callable[[], DeploymentHandle[Any]]) -> None:
        self._name = name
        self._make_handle = make_handle
        self._handle: DeploymentHandle[Any] | None = None

    async def run(self, batch: Any) -> Any:
        """Send a batch and return the stage's answer.

        Raises StageUnavailable when no replica takes it, and whatever the stage itself raised.
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
            raise StageUnavailable(f"{self._name}: two replicas in a row died: {error}") from error

    async def _call(self, batch: Any) -> Any:
        try:
            if self._handle is None:
                self._handle = self._make_handle()
            return await self._handle.run.remote(batch)
        except RayActorError:
            raise
        except (BackPressureError, DeploymentUnavailableError, RayServeException) as error:
            raise StageUnavailable(f"{self._name}: {type(error).__name__}: {error}") from error
