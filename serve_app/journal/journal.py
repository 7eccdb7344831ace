"""What one router keeps: decisions go into its spool before they are answered, and from there into the database."""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

from serve_app.config import JournalConfig
from serve_app.errors import JournalUnavailable, SpoolUnavailable, UnknownDecision
from serve_app.journal.outcomes import Labels, Outcomes, Report
from serve_app.journal.record import Record, pack, pack_shadow
from serve_app.journal.spool import Spool
from serve_app.journal.store import Decisions, connect, folder_of
from serve_app.types import Decision, Row

FINDING = 4
"""Threads that look decisions up."""

log = logging.getLogger(__name__)


class Journal:
    """The spool of a router, and the database that it is shipped to."""

    def __init__(self, config: JournalConfig, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Raises JournalUnavailable and SpoolUnavailable: a router that can keep nothing does not start."""
        self.engine = connect(config.url)
        self.follow_s = config.follow_ms / 1e3
        self._decisions = Decisions(self.engine)
        self._outcomes = Outcomes(self.engine)
        self._spool = Spool(Path(config.spool) / folder_of(config.url))
        self._every_s = config.ship_ms / 1e3
        self._clock = clock
        self._shipping = threading.Lock()
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[None] | None = None
        self._finding = ThreadPoolExecutor(FINDING, "journal")

    def keep(self, made: Sequence[tuple[Decision, Row]]) -> None:
        """Write down decisions, and what they were made from. Raises SpoolUnavailable: they may not be answered."""
        now = self._clock()
        self._spool.append([pack(decision, row, now) for decision, row in made])

    def keep_shadows(self, scored: Sequence[Decision]) -> None:
        """Write down what the other variant would have decided. Raises SpoolUnavailable."""
        now = self._clock()
        self._spool.append([pack_shadow(decision, now) for decision in scored])

    async def find(self, decision_id: str) -> Record:
        """Return what was kept of a decision. Raises UnknownDecision and JournalUnavailable."""
        found = await self.found([decision_id])
        if not found:
            await self._until_shipped()
            found = await self.found([decision_id])
        if not found:
            raise UnknownDecision(f"the journal has no decision {decision_id}: none was given under this id")
        return found[decision_id]

    async def found(self, decision_ids: Sequence[str]) -> dict[str, Record]:
        """Return by its id each of these decisions that is in the database. Raises JournalUnavailable.

        In threads of its own: a database that says nothing keeps them, and nobody else's.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._finding, self._decisions.find_all, decision_ids)

    async def report(self, labels: Labels) -> dict[str, Report]:
        """Record what came of decisions, by their ids. Raises JournalUnavailable."""
        said = await self._report(labels)
        if Report.UNKNOWN in said.values():
            await self._until_shipped()
            late = {i: label for i, label in labels.items() if said[i] is Report.UNKNOWN}
            said |= await self._report(late)
        return said

    async def _until_shipped(self) -> None:
        """Whoever asks at once meets a decision in a spool: ship what is here, and let other routers ship theirs."""
        await self.shipped()
        await asyncio.sleep(2 * self._every_s)

    async def _report(self, labels: Labels) -> dict[str, Report]:
        return await asyncio.to_thread(self._outcomes.report, labels, self._clock())

    def ship(self) -> int:
        """Move what was written down into the database; return how many decisions. Raises JournalUnavailable."""
        with self._shipping:
            return self._spool.ship(self._decisions.keep)

    async def shipped(self) -> None:
        """Return once what was kept until now is in the database. Raises JournalUnavailable.

        However many wait, one ships for all of them: a database that is slow holds one thread.
        """
        if self._next is None or self._next.done():
            self._next = asyncio.create_task(self._ship_next())
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())  # all may have gone
        await asyncio.shield(self._next)

    async def _ship_next(self) -> None:
        async with self._turn:
            self._next = None  # it may come too late for what is kept from now on
            await asyncio.to_thread(self.ship)

    async def ship_forever(self) -> None:
        """Ship again and again, until cancelled. While the database is away, the spool grows and nothing is lost."""
        away = False
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.shipped()
                self._spool.turn_over()
            except (JournalUnavailable, SpoolUnavailable, OSError) as error:
                if not away:
                    log.warning("decisions stay in the spool: %s", error)
                away = True
            else:
                if away:
                    log.warning("the database answers again: decisions are shipped")
                away = False

    async def close(self) -> None:
        """Ship what is left, if the database answers; otherwise another router adopts it. To be called once."""
        try:
            await asyncio.to_thread(self.ship)
        except JournalUnavailable as error:
            log.warning("decisions stay in the spool for another router: %s", error)
        with self._shipping:  # here, where `keep` is called: a file that is closed meanwhile could be another's by then
            self._spool.close()
        self._finding.shutdown(wait=False)
        self.engine.dispose()
