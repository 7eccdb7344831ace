"""The shadow: the other variant scores what one has answered, for the evidence, and nobody ever waits for it.

What does not fit is dropped and counted. A variant is tried with one request before it gets batches; one that fails or
is slow is left alone for a while, what had waited for it is dropped too, and then it is tried again in the same way.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from serve_app.errors import ServeAppError
from serve_app.pipeline import Pipeline
from serve_app.types import Decision, Outcome, Row, SignalRequest, Status, VariantName

CAPACITY = 1_000
"""Requests that wait at most."""
TIMEOUT_S = 1.0
PAUSE_S = 1.0
"""How long a variant that has failed is left alone."""
_BATCH = 64

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Answered:
    """What one variant has decided, and who shall score it too."""

    decision: Decision
    request: SignalRequest
    other: VariantName
    pipeline: Pipeline
    """Of the other."""


Offer = Callable[[Sequence[Answered]], None]
"""Takes what was answered; returns at once and raises nothing."""


def sampled(offer: Offer, share: float) -> Offer:
    """Return what offers a share of the decisions only."""
    if share == 1:
        return offer

    def some(answered: Sequence[Answered]) -> None:
        drawn = [one for one in answered if one.decision.is_drawn(share)]
        if drawn:
            offer(drawn)

    return some


class Shadow:
    """A bounded queue, and one batch of it at a time."""

    def __init__(
        self,
        keep: Callable[[Sequence[Decision]], None],
        dropped: Callable[[int], None],
        timeout_s: float = TIMEOUT_S,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`keep` writes down what the other variant would have decided; `dropped` counts what nobody scored."""
        self._keep = keep
        self._dropped = dropped
        self._timeout_s = timeout_s
        self._pause_s = pause_s
        self._waiting: deque[Answered] = deque()
        self._arrived = asyncio.Event()
        self._most = 1
        self._lost = 0

    def offer(self, answered: Sequence[Answered]) -> None:
        """Queue what fits. See Offer."""
        room = CAPACITY - len(self._waiting)
        self._waiting.extend(map(_shortened, answered[:room]))
        if len(answered) > room:
            self._lost += len(answered) - room  # told later: a metric costs more than all the rest here
        if self._waiting:
            self._arrived.set()

    async def score_forever(self) -> None:
        """Score again and again, until cancelled."""
        while True:
            await self._arrived.wait()
            batch = self._next()
            answers = await self._score(batch)
            if not answers:
                self._drop(batch[0].pipeline)
            if self._lost:
                self._dropped(self._lost)
                self._lost = 0
            self._most = _BATCH if answers else 1
            if not answers:
                await asyncio.sleep(self._pause_s)

    def _next(self) -> list[Answered]:
        """Take the next requests that one pipeline may score together."""
        batch = [self._waiting.popleft()]
        while self._waiting and len(batch) < self._most and self._waiting[0].pipeline is batch[0].pipeline:
            batch.append(self._waiting.popleft())
        if not self._waiting:
            self._arrived.clear()
        return batch

    def _drop(self, pipeline: Pipeline) -> None:
        """Drop what waits for one that has failed: tried one by one, it would keep all that comes later waiting."""
        kept = [one for one in self._waiting if one.pipeline is not pipeline]
        self._lost += len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        if not kept:
            self._arrived.clear()

    async def _score(self, batch: Sequence[Answered]) -> bool:
        """Score a batch, and return whether the variant answers."""
        asked = [(one, row) for one in batch if (row := _row(one)) is not None]
        if len(asked) < len(batch):
            self._lost += len(batch) - len(asked)
        if not asked:
            return True
        try:
            async with asyncio.timeout(self._timeout_s):
                outcomes = await asked[0][0].pipeline.run([row for _, row in asked])
            self._keep([_scored(one, outcome) for (one, _), outcome in zip(asked, outcomes, strict=True)])
        except Exception as error:  # noqa: BLE001  whatever it was, no answer may suffer
            log.warning("%d requests have no shadow: %s", len(asked), repr(error))
            self._lost += len(asked)
            return False
        return any(outcome.reason is None for outcome in outcomes)


def _shortened(one: Answered) -> Answered:
    """Return it without the history that the other pipeline does not read: a client may send much more."""
    try:
        request = one.pipeline.shortened(one.request)
    except Exception:  # it is counted when it is to be scored
        log.exception("a request for %s keeps its whole history: a defect", one.request.symbol)
        return one
    return one if request is one.request else replace(one, request=request)


def _row(one: Answered) -> Row | None:
    """Return the row of a request; None when the other variant cannot use it, as with a symbol it does not know."""
    try:
        return one.pipeline.row(one.request)
    except ServeAppError:
        return None
    except Exception:
        log.exception("a request for %s has no shadow: a defect", one.request.symbol)
        return None


def _scored(one: Answered, outcome: Outcome) -> Decision:
    """Return what the other variant would have decided, under the id of what was."""
    return replace(
        one.decision,
        status=Status.OK if outcome.reason is None else Status.ABSTAIN,
        reason=outcome.reason,
        probability=outcome.probability,
        action=outcome.action,
        variant=one.other,
        model_version=one.pipeline.bundle.version,
        bundle_digest=one.pipeline.bundle.digest,
        batch_size=outcome.batch_size,
        timings_ms=outcome.timings_ms,
        window_crc=outcome.window_crc,
    )
