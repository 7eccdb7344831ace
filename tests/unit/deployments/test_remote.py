"""A stage behind a handle: how it is called."""

import asyncio
from typing import Any

from deployments.autoscaling import Backlog
from deployments.remote import RemoteStage

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
