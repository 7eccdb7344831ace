"""Server-sent events: one message a second, the same bytes for all who look."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from serve_app.errors import TooManyViewers
from serve_app.schemas import encode

EVERY_S = 1.0
STREAM_S = 5.0
"""A stream ends by itself, and its reader comes again: a replica that shall stop waits for no viewer."""
VIEWERS = 32
"""Of one router: each holds one of the requests that it answers at once."""


class Feed:
    """Gathers what there is to see while somebody looks, however many look."""

    def __init__(
        self,
        view: Callable[[], Awaitable[dict[str, Any]]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._view = view
        self._clock = clock
        self._sleep = sleep
        self._viewers = 0
        self._gathering = asyncio.Lock()
        self._gathered_in: int | None = None
        self._message = b""

    def stream(self) -> AsyncIterator[bytes]:
        """Return messages (WHATWG HTML, section 9.2) for STREAM_S. Raises TooManyViewers."""
        if self._viewers >= VIEWERS:
            raise TooManyViewers(f"{VIEWERS} look at this router already; close a dashboard, or try again")
        return self._messages()

    async def _messages(self) -> AsyncIterator[bytes]:
        # A viewer counts from the first message on: one who leaves before that would never be counted off again.
        self._viewers += 1
        ends = self._clock() + STREAM_S
        try:
            while self._clock() < ends:
                yield await self._newest()
                # All wake together, so that what one of them has gathered is new to all.
                await self._sleep(EVERY_S * (self._turn() + 1) - self._clock())
        finally:
            self._viewers -= 1

    async def _newest(self) -> bytes:
        async with self._gathering:
            if (turn := self._turn()) != self._gathered_in:
                self._message = b"data: " + encode(await self._view()) + b"\n\n"
                self._gathered_in = turn
            return self._message

    def _turn(self) -> int:
        """Return the number of the nearest turn: uvloop may wake a sleeper some tenths of a millisecond early."""
        return round(self._clock() / EVERY_S)
