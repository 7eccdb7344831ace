"""What may be asked of the releases of a running graph. The ledger decides; this only reads and writes it."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from serve_app.errors import ReleaseRefused, ServeAppError
from serve_app.router.releases import Author, Entry, Ledger, Release, Step
from serve_app.types import VariantName

Change = Callable[[Release], Release]

log = logging.getLogger(__name__)


class Control:
    """The ledger behind a running graph. Whatever touches the database runs in a thread."""

    def __init__(
        self,
        ledger: Ledger,
        versions: Mapping[str, str],
        symbols: Collection[str],
        catch_up: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`versions` names the bundles that this graph has loaded, by digest; `symbols` are those they know.

        `catch_up` puts the newest epoch into force here, so that whoever changed it meets it at once.
        """
        self._ledger = ledger
        self._versions = versions
        self._symbols = symbols
        self._catch_up = catch_up
        self._clock = clock

    async def history(self) -> list[dict[str, Any]]:
        """Return every entry of the ledger, oldest first."""
        return [self._document(entry) for entry in await asyncio.to_thread(self._ledger.entries)]

    async def variant(self, symbol: str) -> VariantName:
        """Return which variant answers a symbol now."""
        return (await self._newest()).release.assigned().variant(symbol)

    async def preview(self, change: Change, symbols: Collection[str] | None) -> list[dict[str, str]]:
        """Return which symbols a change would move, and where. Raises ReleaseRefused as the change itself would."""
        release = (await self._newest()).release
        now, then = release.assigned(), change(release).assigned()
        asked = sorted(self._symbols if symbols is None else symbols)
        moves = ((symbol, now.variant(symbol), then.variant(symbol)) for symbol in asked)
        return [{"symbol": symbol, "from": a, "to": b} for symbol, a, b in moves if a is not b]

    async def change(self, step: Step, change: Change, who: str, why: str) -> dict[str, Any]:
        """Record a change and put it into force. Raises ReleaseRefused when it cannot be."""
        author = Author(who, why, self._clock())
        return await self._recorded(lambda: self._ledger.change(step, change, author))

    async def rollback(self, who: str, why: str) -> dict[str, Any]:
        """Record a rollback and put it into force."""
        author = Author(who, why, self._clock())
        return await self._recorded(lambda: self._ledger.rollback(author))

    async def _recorded(self, write: Callable[[], Entry]) -> dict[str, Any]:
        entry = await asyncio.to_thread(write)
        try:
            await self._catch_up()
        except ServeAppError as error:
            # It is recorded, and in force as soon as the routers can read it: no failure of the change.
            log.warning("epoch %d is recorded and not yet in force here: %s", entry.epoch, error)
        return self._document(entry)

    async def _newest(self) -> Entry:
        entries = await asyncio.to_thread(self._ledger.entries)
        if not entries:
            raise ReleaseRefused("there is no release yet: no router has started")
        return entries[-1]

    def _document(self, entry: Entry) -> dict[str, Any]:
        release = entry.release
        digests = {"production": release.production, "candidate": release.candidate}
        versions = {name: digest and self._versions.get(digest) for name, digest in digests.items()}
        return {**entry.model_dump(mode="json"), "versions": versions}
