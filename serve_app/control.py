"""What may be asked of the releases of a running graph. The ledger decides; this only reads and writes it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

from serve_app.errors import ReleaseRefused, ServeAppError
from serve_app.router.releases import Author, Entry, Ledger, Release, Step
from serve_app.types import VariantName

Change = Callable[[Release], Release]

log = logging.getLogger(__name__)


Try = Callable[[str], Awaitable[Change]]
"""Loads a version beside what serves, proves it, and returns the change that makes it the candidate."""


class Bundles(Protocol):
    """What a graph knows of its bundles."""

    def names(self) -> Mapping[str, str]:
        """Return the version of each bundle that there is, by digest."""

    def symbols(self) -> Collection[str]:
        """Return what the bundles know that serve now."""


class Control:
    """The ledger behind a running graph. Whatever touches the database runs in a thread."""

    def __init__(
        self,
        ledger: Ledger,
        bundles: Bundles,
        tried: Try,
        catch_up: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`tried` may raise anything: then there is no such candidate, and the ledger says why, unless it was refused.

        `catch_up` puts the newest epoch into force here, so that whoever changed it meets it at once.
        """
        self._ledger = ledger
        self._bundles = bundles
        self._tried = tried
        self._catch_up = catch_up
        self._clock = clock

    async def history(self) -> list[dict[str, Any]]:
        """Return every entry of the ledger, oldest first."""
        return await asyncio.to_thread(lambda: self._documents(self._ledger.entries()))

    async def variant(self, symbol: str) -> VariantName:
        """Return which variant answers a symbol now."""
        return (await self._newest()).release.assigned().variant(symbol)

    async def preview(self, change: Change, symbols: Collection[str] | None) -> list[dict[str, str]]:
        """Return which symbols a change would move, and where. Raises ReleaseRefused as the change itself would."""
        release = (await self._newest()).release
        now, then = release.assigned(), change(release).assigned()
        asked = sorted(self._bundles.symbols() if symbols is None else symbols)
        moves = ((symbol, now.variant(symbol), then.variant(symbol)) for symbol in asked)
        return [{"symbol": symbol, "from": a, "to": b} for symbol, a, b in moves if a is not b]

    async def change(
        self, step: Step, change: Change, who: str, why: str, follows: int | None = None, by_plan: bool = False
    ) -> dict[str, Any]:
        """Record a change and put it into force. Raises ReleaseRefused when it cannot be.

        `follows`, `by_plan`: see the ledger.
        """
        author = Author(who, why, self._clock())
        return await self._recorded(lambda: self._ledger.change(step, change, author, follows=follows, by_plan=by_plan))

    async def candidate(self, version: str, who: str, why: str, follows: int | None = None) -> dict[str, Any]:
        """Load another version and make it the candidate, which answers nobody yet.

        Raises ReleaseRefused when it cannot be loaded or does not reproduce its golden cases: nothing has changed
        then, and the ledger keeps the reason.
        """
        author = Author(who, why, self._clock())
        try:
            change = await self._tried(version)
        except ReleaseRefused:
            raise
        except Exception as error:
            reason = f"{version} is not the candidate: {_said(error)}"
            await asyncio.to_thread(self._ledger.fail, reason, author)
            raise ReleaseRefused(reason) from error
        return await self._recorded(lambda: self._ledger.change(Step.CANDIDATE, change, author, follows=follows))

    async def rollback(self, who: str, why: str, follows: int | None = None) -> dict[str, Any]:
        """Record a rollback and put it into force; see `change`."""
        author = Author(who, why, self._clock())
        return await self._recorded(lambda: self._ledger.rollback(author, follows=follows))

    async def _recorded(self, write: Callable[[], Entry]) -> dict[str, Any]:
        entry = await asyncio.to_thread(write)
        try:
            await self._catch_up()
        except ServeAppError as error:
            # It is recorded, and in force as soon as the routers can read it: no failure of the change.
            log.warning("epoch %d is recorded and not yet in force here: %s", entry.epoch, error)
        (document,) = await asyncio.to_thread(self._documents, [entry])
        return document

    async def _newest(self) -> Entry:
        entries = await asyncio.to_thread(self._ledger.entries)
        if not entries:
            raise ReleaseRefused("there is no release yet: no router has started")
        return entries[-1]

    def _documents(self, entries: Iterable[Entry]) -> list[dict[str, Any]]:
        names = self._bundles.names()

        def versions(release: Release) -> dict[str, str | None]:
            digests = {"production": release.production, "candidate": release.candidate}
            return {name: digest and names.get(digest) for name, digest in digests.items()}

        return [{**entry.model_dump(mode="json"), "versions": versions(entry.release)} for entry in entries]


def _said(error: Exception) -> str:
    """Return what an error says; what a library says of itself is for the log, which names more than one may see."""
    if isinstance(error, ServeAppError):
        return str(error)
    log.error("a candidate cannot be loaded", exc_info=error)
    return type(error).__name__
