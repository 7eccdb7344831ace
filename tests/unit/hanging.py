"""A model whose thread hangs, and callers who give up."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from serve_app.model.stage import Model

_WAIT_S = 30


@contextmanager
def hanging(model: Model) -> Iterator[threading.Event]:
    """Let every pass of a model hang until the end; the event says that one does."""
    hangs, go_on = threading.Event(), threading.Event()
    logits = model._predictor.logits

    def hang(*arrays: Any) -> Any:
        hangs.set()
        assert go_on.wait(_WAIT_S)
        return logits(*arrays)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model._predictor, "logits", hang)
        yield hangs
        go_on.set()
        model._executor.shutdown(cancel_futures=True)


async def given_up(asked: Coroutine[Any, Any, object], hangs: threading.Event) -> None:
    """Ask, and give up once a pass hangs and whatever else can run has run."""
    task = asyncio.ensure_future(asked)
    assert await asyncio.to_thread(hangs.wait, _WAIT_S)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
