"""Which release serves in one router: that of the newest line of the ledger, or for ever that of the YAML."""

import asyncio
import logging
from datetime import UTC, datetime

from deployments.lanes import Lanes
from serve_app.control import Control
from serve_app.errors import ServeAppError
from serve_app.journal import Journal, ReleaseLines
from serve_app.replay import Replayer
from serve_app.router.releases import Author, Entry, Ledger, Release
from serve_app.service import CurrentService, Keep, SignalService
from serve_app.shadow import Offer

log = logging.getLogger(__name__)


def ledger_of(journal: Journal, lanes: Lanes) -> Ledger:
    """Return the ledger in a journal's database, for the bundles that this router has loaded."""
    return Ledger(ReleaseLines(journal.engine), lanes.check)


def service_of(lanes: Lanes, release: Release) -> CurrentService:
    """Return the service of a release that no ledger keeps."""
    return CurrentService(SignalService(lanes.of(release), release.assigned()))


class Follower:
    """Keeps a router in the release that the ledger says, switching between two requests."""

    def __init__(self, ledger: Ledger, lanes: Lanes, seed: Release, every_s: float, keep: Keep, offer: Offer) -> None:
        """Begin with the release in force; `seed` is it when the ledger is empty. `keep`, `offer`: see SignalService.

        Raises ReleaseRefused when it names a bundle that this graph has not loaded, and JournalUnavailable.
        """
        self._ledger = ledger
        self._lanes = lanes
        self._every_s = every_s
        self._offer = offer
        author = Author("configuration", "the first release of an empty ledger", datetime.now(UTC))
        entry = self._ledger.seed(seed, author)
        service = SignalService(
            lanes.of(entry.release), entry.release.assigned(), entry.epoch, keep, self._offered(entry)
        )
        self.current = CurrentService(service)
        self._number = entry.number
        self._catching_up = asyncio.Lock()

    def _offered(self, entry: Entry) -> Offer | None:
        return self._offer if entry.release.shadow else None

    def control(self) -> Control:
        """Return what may be asked of the ledger over HTTP."""
        bundles = self._lanes.bundles
        versions = {digest: bundle.version for digest, bundle in bundles.items()}
        symbols = {symbol for bundle in bundles.values() for symbol in bundle.symbol_to_id}
        return Control(self._ledger, versions, symbols, self.catch_up)

    def replayer(self, journal: Journal) -> Replayer:
        """Return what computes decisions of a journal again."""
        return Replayer(journal.find, self._ledger, self._lanes.pipeline)

    async def follow_forever(self) -> None:
        """Catch up again and again, until cancelled. While the database is away, the release in force stays."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.catch_up()
            except ServeAppError as error:
                log.warning("epoch %d stays in force: %s", self.current.now.epoch, error)

    async def catch_up(self) -> None:
        """Put the newest release into force. Raises JournalUnavailable, HistoryAltered or ReleaseRefused."""
        async with self._catching_up:
            if await asyncio.to_thread(self._ledger.newest) == self._number:
                return
            entry = (await asyncio.to_thread(self._ledger.entries))[-1]
            if entry.epoch != self.current.now.epoch:
                await self._switch(entry)
            self._number = entry.number

    async def _switch(self, entry: Entry) -> None:
        lanes = self._lanes.of(entry.release)
        after = self.current.now.followed_by(lanes, entry.release.assigned(), entry.epoch, self._offered(entry))
        # Before it answers: what is loaded proves itself within milliseconds, and nothing abstains meanwhile.
        await after.prove()
        self.current.now = after
        log.warning("epoch %d is in force: %s by %s (%s)", entry.epoch, entry.step, entry.who, entry.why)
