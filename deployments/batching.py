"""Permit-first batching: a batch is cut when a slot downstream is free, never on a timer while it is busy.

`serve.batch` forms batches before it takes its permit, so under load it cuts small ones that then queue. Here the
rows wait in the queue until there is a permit, and all that are waiting then leave together. The first permit is for
whatever waits; further ones are for full batches only, so that they add replicas under load and cut no batch smaller.
"""

import asyncio
import contextvars
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import cast

from serve_app.errors import Overloaded, StageFailed
from serve_app.types import QUEUE, Outcome, Reason, Row


@dataclass(slots=True, eq=False)
class _Call:
    """Rows that one caller awaits together."""

    future: asyncio.Future[list[Outcome]]
    rows: Sequence[Row]
    outcomes: list[Outcome | None] = field(init=False)
    missing: int = field(init=False)

    def __post_init__(self) -> None:
        self.missing = len(self.rows)
        self.outcomes = [None] * self.missing

    def answer(self, place: int, outcome: Outcome) -> None:
        self.outcomes[place] = outcome
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(cast("list[Outcome]", self.outcomes))

    def finish(self, otherwise: Callable[[Row], Outcome]) -> None:
        """Give the caller what there is, and `otherwise` for the rest."""
        if self.future.done():
            return
        pairs = zip(self.rows, self.outcomes, strict=True)
        self.future.set_result([outcome or otherwise(row) for row, outcome in pairs])


@dataclass(slots=True, eq=False)
class _Entry:
    call: _Call
    place: int
    arrived: float

    @property
    def row(self) -> Row:
        return self.call.rows[self.place]

    @property
    def awaited(self) -> bool:
        """Whether anybody still wants it: not when its caller left, or when its deadline has passed."""
        return not self.call.future.done()


@dataclass(frozen=True, slots=True)
class Limits:
    """How one variant's rows are gathered."""

    max_batch_size: int
    max_in_flight: int
    max_queued_rows: int
    deadline_s: float
    max_queue_s: float = math.inf
    """No row joins a queue whose first has waited for longer while batches came back: there is too much to do."""
    max_wait_s: float = 0.0
    """How long a batch that is not full waits for company although a permit is free."""
    max_calls: float = math.inf
    """Callers that may wait at once, with however many rows."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch that is not away any more: how many rows, how long each had waited before it left, how long it was away.

    It has come back, has failed, or was given up at the deadline.
    """

    waits_s: Sequence[float]
    took_s: float

    def __len__(self) -> int:
        return len(self.waits_s)


def _ignore(_: Sent) -> None:
    """Nobody wants to know."""


class Batcher:
    """Gathers rows of one bundle and hands them to `run` in batches; rows that nobody awaits any more are left out."""

    def __init__(
        self,
        run: Callable[[Sequence[Row]], Awaitable[list[Outcome]]],
        abstain: Callable[[Row, Reason], Outcome],
        limits: Limits,
        sent: Callable[[Sent], None] = _ignore,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.limits = limits
        """May be replaced at any time: the next batch obeys."""
        self._run = run
        self._abstain = abstain
        self._sent = sent
        self._clock = clock
        self._queue: deque[_Entry] = deque()
        self._in_flight = 0
        self._rows_in_flight = 0
        self._calls = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._back_at = -math.inf
        self._hangs = False
        self._cut_at: asyncio.Handle | None = None
        self._patient = False

    @property
    def outstanding(self) -> int:
        """Rows that wait or are downstream."""
        return len(self._queue) + self._rows_in_flight

    async def submit(self, rows: Sequence[Row]) -> list[Outcome]:
        """Return the outcome of each row; an abstention for those that the deadline passes first.

        Raises Overloaded when the queue is too long for them, or too many callers wait. Cancelling it disturbs no
        other row. After a batch that never came back, one batch at a time tries again; the rows beside it abstain at
        once, since whoever waited for the deadline would fill the router, and keep the other variant's requests out.
        """
        if not rows:
            return []
        if self._hangs and self.outstanding:
            return [self._abstain(row, Reason.MODEL_UNAVAILABLE) for row in rows]
        now = self._clock()
        self._refuse_when_slow(now)
        self._refuse_when_full(len(rows))
        if self._calls >= self.limits.max_calls:
            raise _overloaded(self.outstanding)
        loop = asyncio.get_running_loop()
        call = _Call(loop.create_future(), rows)
        self._queue.extend(_Entry(call, place, now) for place in range(len(rows)))
        self._cut_soon(loop)
        deadline = loop.call_later(self.limits.deadline_s, call.finish, self._too_late)
        self._calls += 1
        try:
            return await call.future
        finally:
            self._calls -= 1
            deadline.cancel()

    def _too_late(self, row: Row) -> Outcome:
        return self._abstain(row, Reason.DEADLINE)

    def _refuse_when_slow(self, now: float) -> None:
        """Keep the wait bounded under any load. Not while nothing comes back: that is an outage, and rows abstain."""
        while self._queue and not self._queue[0].awaited:  # its caller has left, or has been told that it is too late
            self._queue.popleft()
        longest = self.limits.max_queue_s
        if self._queue and now - self._queue[0].arrived > longest > now - self._back_at:
            raise _overloaded(len(self._queue))

    def _refuse_when_full(self, n: int) -> None:
        room = self.limits.max_queued_rows - n
        if len(self._queue) <= room:
            return
        # Rows that nobody awaits any more do not count.
        self._queue = deque(entry for entry in self._queue if entry.awaited)
        waiting = len(self._queue)
        if waiting > room:
            raise _overloaded(waiting)

    def _cut_soon(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cut one turn of the loop later: requests that arrived together leave together.

        In a context of its own: Ray Serve keeps the request in the context, and would cancel what runs in it when that
        caller leaves.
        """
        limits, waiting = self.limits, len(self._queue)
        if self._in_flight >= limits.max_in_flight:
            return
        patient = limits.max_wait_s > 0 and waiting < limits.max_batch_size
        if self._cut_at is not None:
            if patient or not self._patient:
                return
            self._cut_at.cancel()
        self._patient = patient
        delay = limits.max_wait_s if patient else 0.0
        self._cut_at = loop.call_later(delay, self._cut, context=contextvars.Context())

    def _cut(self) -> None:
        """Send batches for as long as there are rows and permits."""
        if self._cut_at is not None:
            self._cut_at.cancel()  # its rows leave now, or when a batch comes back
        self._cut_at = None
        while self._may_send() and (entries := self._next_batch()):
            self._in_flight += 1
            self._rows_in_flight += len(entries)
            task = asyncio.get_running_loop().create_task(self._send(entries))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _may_send(self) -> bool:
        if not self._in_flight:
            return True
        return self._in_flight < self.limits.max_in_flight and len(self._queue) >= self.limits.max_batch_size

    def _next_batch(self) -> list[_Entry]:
        entries: list[_Entry] = []
        while self._queue and len(entries) < self.limits.max_batch_size:
            entry = self._queue.popleft()
            if entry.awaited:
                entries.append(entry)
        return entries

    async def _send(self, entries: Sequence[_Entry]) -> None:
        started = self._clock()
        waits = [started - entry.arrived for entry in entries]
        rows = [entry.row for entry in entries]
        try:
            async with asyncio.timeout(self.limits.deadline_s):
                outcomes = await self._run(rows)
            if len(outcomes) != len(rows):
                raise StageFailed(f"{len(rows)} rows got {len(outcomes)} outcomes")
        except TimeoutError:
            self._hangs = self._back_at < started
            _late(entries, self._too_late)
            self._tell(waits, self._clock() - started)
            return
        except Exception as error:  # noqa: BLE001  `run` fails closed by itself; whatever is left must not hang callers
            self._hangs = False
            _fail(entries, error)
            self._tell(waits, self._clock() - started)
            return
        finally:
            self._in_flight -= 1
            self._rows_in_flight -= len(rows)
            self._cut()
        self._back_at, self._hangs = self._clock(), False
        for entry, wait, outcome in zip(entries, waits, outcomes, strict=True):
            entry.call.answer(entry.place, _with_wait(outcome, wait))
        self._tell(waits, self._back_at - started)

    def _tell(self, waits: Sequence[float], took_s: float) -> None:
        """Tell of a batch, after those that wait for an answer have gone on: metrics take as long as small batches."""
        asyncio.get_running_loop().call_soon(self._sent, Sent(waits, took_s))


def _overloaded(waiting: int) -> Overloaded:
    return Overloaded(f"{waiting} requests are waiting for this model; try again in a second", retry_after_s=1)


def _with_wait(outcome: Outcome, wait_s: float) -> Outcome:
    timings = {QUEUE: 1e3 * wait_s, **outcome.timings_ms}
    # What `replace` would make, at a fifth of its time.
    return Outcome(
        outcome.action,
        outcome.probability,
        outcome.reason,
        outcome.batch_size,
        timings,
        outcome.window_crc,
        outcome.seen,
    )


def _late(entries: Iterable[_Entry], otherwise: Callable[[Row], Outcome]) -> None:
    for entry in entries:
        entry.call.answer(entry.place, otherwise(entry.row))


def _fail(entries: Iterable[_Entry], error: Exception) -> None:
    for entry in entries:
        if entry.awaited:
            entry.call.future.set_exception(error)
