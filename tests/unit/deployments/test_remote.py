"""A stage behind a handle: how it is called, and what becomes of a batch that is too large for one message."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from deployments.autoscaling import Backlog
from deployments.remote import RemoteStage
from serve_app.batches import WindowBatch
from serve_app.errors import StageFailed, StageUnavailable
from serve_app.pipeline import Pipeline
from serve_app.types import Bars, Reason
from tests.factories import real_requests, values, with_stages

BACKLOG = Backlog("router", 3)


class Handle:
    """Answers every batch with its backlog, and counts how often it was made anew."""

    def __init__(self) -> None:
        self.options_asked: list[dict[str, Any]] = []

    def options(self, **options: Any) -> "Handle":
        self.options_asked.append(options)
        return self

    def remote(self, batch: str, backlog: Backlog) -> "asyncio.Future[tuple[str, Backlog]]":
        answer: asyncio.Future[tuple[str, Backlog]] = asyncio.get_running_loop().create_future()
        answer.set_result((batch, backlog))
        return answer


def test_a_handle_is_made_once_at_the_first_batch_and_pickles_plainly() -> None:
    made: list[Handle] = []

    def make() -> Any:
        made.append(Handle())
        return made[-1]

    async def ask() -> list[Any]:
        stage = RemoteStage("model", make, lambda: BACKLOG)
        assert not made
        return [await stage.run("one"), await stage.run("two")]

    assert asyncio.run(ask()) == [("one", BACKLOG), ("two", BACKLOG)]
    (handle,) = made
    assert handle.options_asked == [
        {"method_name": "run", "request_serialization": "pickle", "response_serialization": "pickle"}
    ]


LIMIT = 10_000
"""Of a message, in bytes."""


class Calls:
    """A handle whose batches go wherever `call` takes them."""

    def __init__(self, call: Callable[[Any], Any]) -> None:
        self._call = call

    def options(self, **_: Any) -> "Calls":
        return self

    def remote(self, batch: Any, _: Backlog) -> Any:
        return self._call(batch)


def stage_that(call: Callable[[Any], Any]) -> RemoteStage:
    handle: Any = Calls(call)
    return RemoteStage("model", lambda: handle, lambda: BACKLOG)


async def over_grpc(sent: bytes, answered: bytes) -> bytes:
    """Send bytes to a server that takes LIMIT of them, and take as many; as Ray Serve sets up both sides."""

    async def answer(_: bytes, __: Any) -> bytes:
        return answered

    options = [("grpc.max_receive_message_length", LIMIT)]
    server = grpc.aio.server(options=options)
    handler = grpc.method_handlers_generic_handler("Stage", {"run": grpc.unary_unary_rpc_method_handler(answer)})
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
            got: bytes = await stage_that(channel.unary_unary("/Stage/run")).run(sent)
            return got
    finally:
        await server.stop(None)


@pytest.mark.parametrize(("sent", "answered"), [(2 * LIMIT, 1), (1, 2 * LIMIT)], ids=["batch", "answer"])
def test_what_is_too_large_for_one_message_may_be_tried_in_parts(sent: int, answered: int) -> None:
    with pytest.raises(StageFailed, match=f"a batch of {sent} rows is too large for one message") as failed:
        asyncio.run(over_grpc(bytes(sent), bytes(answered)))
    assert not isinstance(failed.value, StageUnavailable)


def test_what_fits_in_one_message_comes_back() -> None:
    assert asyncio.run(over_grpc(b"batch", b"answer")) == b"answer"


def refused(details: str) -> AioRpcError:
    return AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, Metadata(), Metadata(), details)


def test_every_row_of_a_batch_that_is_too_large_is_answered(pipeline: Pipeline, bars: Mapping[str, Bars]) -> None:
    sizes: list[int] = []

    async def model(batch: WindowBatch) -> Any:
        sizes.append(len(batch))
        if len(batch) > 3:
            raise refused("SERVER: Received message larger than max (4475823 vs. 4194304)")
        return await pipeline.stages.model(batch)

    remote = with_stages(pipeline, model=stage_that(model).run)
    rows = [pipeline.row(request) for request in real_requests(bars, 8)]
    outcomes = asyncio.run(remote.run(rows))
    assert sizes == [8, 4, 2, 2, 4, 2, 2]
    expected = values(asyncio.run(pipeline.run(rows)), "probability")
    assert values(outcomes, "probability") == pytest.approx(expected, abs=1e-6)


def test_a_stage_that_has_no_room_for_any_batch_is_not_asked_in_parts(
    pipeline: Pipeline, bars: Mapping[str, Bars]
) -> None:
    sizes: list[int] = []

    async def model(batch: WindowBatch) -> Any:
        sizes.append(len(batch))
        raise refused("Request dropped due to backpressure")

    remote = with_stages(pipeline, model=stage_that(model).run)
    outcomes = asyncio.run(remote.run([pipeline.row(request) for request in real_requests(bars, 8)]))
    assert sizes == [8]
    assert set(values(outcomes, "reason")) == {Reason.MODEL_UNAVAILABLE}


class Nodes:
    """A handle whose replicas say how full their nodes are, or fail."""

    def __init__(self, *said: Any, otherwise: Exception | None = None) -> None:
        self._said = said
        self._otherwise = otherwise

    def options(self, **_: Any) -> "Nodes":
        return self

    def broadcast(self, method: str) -> "Nodes":
        assert method == "memory"
        return self

    async def results_async(self, **_: Any) -> list[Any]:
        if self._otherwise:
            raise self._otherwise
        return list(self._said)


def memory_of(handle: Any) -> dict[str, float]:
    return asyncio.run(RemoteStage("model", lambda: handle, lambda: BACKLOG).memory())


def test_nodes_are_as_full_as_their_replicas_say_whoever_is_away() -> None:
    handle = Nodes({"10.0.0.1": 0.5}, RayActorError(), {"10.0.0.2": 0.9})
    assert memory_of(handle) == {"10.0.0.1": 0.5, "10.0.0.2": 0.9}


@pytest.mark.parametrize("error", [TimeoutError(), DeploymentUnavailableError(DeploymentID("model")), RayActorError()])
def test_a_stage_that_is_away_says_of_no_node_how_full_it_is(error: Exception) -> None:
    assert memory_of(Nodes(otherwise=error)) == {}
