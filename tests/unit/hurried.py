"""Tests that last minutes, in no time."""

import asyncio
import selectors


class Hurried(asyncio.SelectorEventLoop):
    """A loop on which time begins at 0, and passes at once where everybody waits for it."""

    def __init__(self) -> None:
        self._now = 0.0
        selector = selectors.DefaultSelector()
        select = selector.select

        def hurried(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            self._now += timeout or 0
            return select(0 if timeout else timeout)

        selector.select = hurried  # type: ignore[method-assign]
        super().__init__(selector)

    def time(self) -> float:
        return self._now
