"""Requests under an idempotency key: whoever asks again, of whichever router, gets the first decision again.

The ids of the decisions follow from the key, and the database keeps the first of an id: so it alone says which
decision was the first, also between two routers that were asked at the same time.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol

from serve_app.errors import IdempotencyConflict, JournalUnavailable
from serve_app.identity import decision_id, timestamp_of
from serve_app.journal import Record, decision_of, unpack_row
from serve_app.service import CurrentService, Refused
from serve_app.types import Decision, PositionStatus, SignalRequest

Answer = Decision | Refused
PATIENCE_S = 2.0
"""With the database."""


class Kept(Protocol):
    """What is needed of a journal."""

    async def shipped(self) -> None:
        """Return once what was decided is in the database."""

    async def found(self, decision_ids: Sequence[str]) -> Mapping[str, Record]:
        """Return those decisions that are in the database."""


def identity_of(client: str, key: str) -> str:
    """Return what stands for the request id: another for each client, however the two divide the same text."""
    return "idempotency-key:" + hashlib.sha256(f"{len(client)}:{client}{key}".encode()).hexdigest()


class Once:
    """Decides once for each key."""

    def __init__(self, service: CurrentService, journal: Kept, patience_s: float = PATIENCE_S) -> None:
        self._service = service
        self._journal = journal
        self._patience_s = patience_s

    async def decide(self, identity: str, requests: Sequence[SignalRequest | Refused]) -> list[Answer]:
        """Answer requests in their order; those that were answered before, as they were.

        What was refused was not decided, and is tried again. A key that was used for another request is the refusal of
        that request alone. Raises JournalUnavailable: the client may ask again, under the same key.
        """
        ids = [decision_id(identity, place) for place in range(len(requests))]
        answers: Sequence[SignalRequest | Answer] = requests
        first = await self._in_time(self._journal.found(ids))
        if any(one not in first and not isinstance(asked, Refused) for one, asked in zip(ids, requests, strict=True)):
            answers = await self._service.decide(lambda place, _: ids[place], requests)
            first = await self._in_time(self._shipped(ids))
        return [
            self._again(first[one], asked) if one in first else self._refusal(answer)
            for one, asked, answer in zip(ids, requests, answers, strict=True)
        ]

    async def _shipped(self, ids: Sequence[str]) -> Mapping[str, Record]:
        await self._journal.shipped()
        return await self._journal.found(ids)

    async def _in_time(self, first: Awaitable[Mapping[str, Record]]) -> Mapping[str, Record]:
        """Wait for the first decisions, but not for a database that is locked or far: others want the places."""
        try:
            async with asyncio.timeout(self._patience_s):
                return await first
        except TimeoutError as error:
            raise JournalUnavailable(f"the journal's database has not answered for {self._patience_s:g} s") from error

    def _again(self, record: Record, asked: SignalRequest | Refused) -> Answer:
        if isinstance(asked, Refused):
            return self._service.with_fallback(asked)
        # For whom and when, and whether to enter or to leave; how long it is held may be told anew by who asks again.
        first_asked = record["symbol"], record["timestamp"], _status(record)
        if first_asked == (asked.symbol, timestamp_of(asked), asked.position.status):
            return decision_of(record)
        used_for = "{} at {}, {}".format(*first_asked)
        error = IdempotencyConflict(f"this Idempotency-Key was used for {used_for}; use a new one for each request")
        return self._service.with_fallback(Refused(error, asked.symbol, asked.position))

    def _refusal(self, answer: SignalRequest | Answer) -> Refused:
        assert isinstance(answer, Refused)  # noqa: S101  a decision that was kept is in the database by now
        return self._service.with_fallback(answer)


def _status(record: Record) -> PositionStatus:
    return PositionStatus.LONG if unpack_row(record["inputs"]).is_long else PositionStatus.FLAT
