"""Permit-first batching: a batch is cut when a slot downstream is free, never on a timer while it is busy.

`serve.batch` forms batches before it takes its permit, so under load it cuts small ones that then queue. Here the
rows wait in the queue until there is a permit, and all that are waiting then leave together.
"""

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from serve_app.errors import Overloaded, StageFailed
from serve_app.types import Outcome, Reason, Row


@dataclass(slots=True)
class _Entry:
    row: Row
    future: asyncio.Future[Outcome]
    arrived: float


@dataclass(frozen=True, slots=True)
class Limits:
    """How one variant's rows are gathered."""

    max_batch_size: int
    max_in_flight: int
    max_queued_rows: int
    deadline_s: float


class Batcher:
    """Gathers rows of one bundle and hands them to `run` in batches; rows that nobody awaits any more are left out."""

    def __init__(
        self,
        run: Callable[[Sequence[Row]], Awaitable[list[Outcome]]],
        abstain: Callable[[Row, Reason], Outcome],
        limits: Limits,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._abstain = abstain
        self._limits = limits
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._free = limits.max_in_flight
        self._tasks: set[asyncio.Task[None]] = set()

    async def submit(self, row: Row) -> Outcome:
        """Return the outcome of a row, or an abstention when the deadline passes first.

        Raises Overloaded when the queue is full. Cancelling it disturbs no other row.
        """
        self._refuse_when_full()
        loop = asyncio.get_running_loop()
        entry = _Entry(row, loop.create_future(), self._clock())
        self._queue.append(entry)
        # Cutting one turn of the loop later lets requests that arrived together leave together. In a context of its
        # own: Ray Serve keeps the request in the context, and would cancel what runs in it when that caller leaves.
        loop.call_soon(self._cut, context=contextvars.Context())
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                return await entry.future
        except TimeoutError:
            return self._abstain(row, Reason.DEADLINE)

    def _refuse_when_full(self) -> None:
        if len(self._queue) < self._limits.max_queued_rows:
            return
        # Rows that nobody awaits any more do not count.
        self._queue = deque(entry for entry in self._queue if not entry.future.done())
        waiting = len(self._queue)
        if waiting >= self._limits.max_queued_rows:
            raise Overloaded(f"{waiting} requests are waiting for this model; try again in a second", retry_after_s=1)

    def _cut(self) -> None:
        """Send batches for as long as there are rows and permits."""
        while self._free > 0 and (entries := self._next_batch()):
            self._free -= 1
            task = asyncio.get_running_loop().create_task(self._send(entries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_batch(self) -> list[_Entry]:
        entries: list[_Entry] = []
        while self._queue and len(entries) < self._limits.max_batch_size:
            entry = self._queue.popleft()
            # Done before it was run: cancelled by its caller, or past its deadline.
            if not entry.future.done():
                entries.append(entry)
        return entries

    async def _send(self, entries: Sequence[_Entry]) -> None:
        started = self._clock()
        try:
            async with asyncio.timeout(self._limits.deadline_s):
                outcomes = await self._run([entry.row for entry in entries])
            if len(outcomes) != len(entries):
                raise StageFailed(f"{len(entries)} rows got {len(outcomes)} outcomes")
        except TimeoutError:
            outcomes = [self._abstain(entry.row, Reason.DEADLINE) for entry in entries]
        except Exception as error:  # noqa: BLE001  `run` fails closed by itself; whatever is left must not hang callers
            for entry in entries:
                _fail(entry.future, error)
            return
        finally:
            self._free += 1
            self._cut()
        for entry, outcome in zip(entries, outcomes, strict=True):
            queued = {"queue": 1e3 * (started - entry.arrived)}
            _resolve(entry.future, replace(outcome, timings_ms={**queued, **outcome.timings_ms}))


def _resolve(future: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not future.done():
        future.set_result(outcome)


def _fail(future: asyncio.Future[Outcome], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
