"""Which release serves in one router: that of the newest line of the ledger, or for ever that of the YAML."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from deployments.lanes import Lanes
from serve_app.config import AlertName
from serve_app.control import Change, Control
from serve_app.errors import ServeAppError
from serve_app.evidence import Experiments
from serve_app.guard import Guard, Senses
from serve_app.journal import Journal, ReleaseLines, vitals
from serve_app.parity import check_golden
from serve_app.replay import Replayer
from serve_app.router.changes import replaced
from serve_app.router.releases import Author, Entry, Ledger, Release
from serve_app.router.slots import slots
from serve_app.service import CurrentService, Keep, SignalService
from serve_app.shadow import Offer, sampled
from serve_app.types import VariantName

log = logging.getLogger(__name__)


def ledger_of(journal: Journal, lanes: Lanes) -> Ledger:
    """Return the ledger in a journal's database, for the bundles that this router can load."""
    return Ledger(ReleaseLines(journal.engine), lanes.check)


def service_of(lanes: Lanes, release: Release) -> CurrentService:
    """Return the service of a release that no ledger keeps."""
    return CurrentService(SignalService(lanes.of(release, _slots([release])), release.assigned()))


def _slots(releases: Iterable[Release]) -> dict[str, VariantName]:
    return slots((release.production, release.candidate) for release in releases)


class Follower:
    """Keeps a router in the release that the ledger says, switching between two requests."""

    def __init__(self, ledger: Ledger, lanes: Lanes, seed: Release, every_s: float, keep: Keep, offer: Offer) -> None:
        """Begin with the release in force; `seed` is it when the ledger is empty. `keep`, `offer`: see SignalService.

        Raises ReleaseRefused when it names a bundle that this graph cannot find, what loading one raises, and
        JournalUnavailable.
        """
        self._ledger = ledger
        self._lanes = lanes
        self._every_s = every_s
        self._offer = offer
        author = Author("configuration", "the first release of an empty ledger", datetime.now(UTC))
        entry = self._ledger.seed(seed, author)
        places = _slots(one.release for one in self._ledger.entries())
        service = SignalService(
            lanes.of(entry.release, places), entry.release.assigned(), entry.epoch, keep, self._offered(entry)
        )
        self.current = CurrentService(service)
        self._entry = entry
        self._number = entry.number
        self._catching_up = asyncio.Lock()

    def _offered(self, entry: Entry) -> Offer | None:
        release = entry.release
        return sampled(self._offer, release.shadow_share) if release.shadow else None

    def control(self) -> Control:
        """Return what may be asked of the ledger over HTTP."""
        return Control(self._ledger, self._lanes, self._tried, self.catch_up)

    async def _tried(self, version: str) -> Change:
        """Load a version beside what serves, and let it reproduce its golden cases; return the change to it."""
        digest = await self._lanes.named(version)
        change = replaced(digest)
        releases = [entry.release for entry in await asyncio.to_thread(self._ledger.entries)]
        await self._lanes.load([digest], _slots([*releases, change(releases[-1])]))
        await check_golden(await self._lanes.pipeline(digest, None))
        return change

    def experiments(self, journal: Journal) -> Experiments:
        """Return what is known of each candidate."""
        return Experiments(journal.engine, self._ledger, self._lanes.names, self._lanes.bundle)

    def replayer(self, journal: Journal) -> Replayer:
        """Return what computes decisions of a journal again."""
        return Replayer(journal.find, self._ledger, self._lanes.pipeline)

    def guard(
        self, journal: Journal, monitor: Callable[[], Awaitable[Mapping[str, Any]]], roll_back: Collection[AlertName]
    ) -> Guard:
        """Return what moves guarded promotions on, and back; `roll_back`: the alerts that end one."""
        experiments = self.experiments(journal)

        senses = Senses(
            in_force=lambda: self._entry,
            vitals=lambda epoch, name: asyncio.to_thread(vitals, journal.engine, epoch, name),
            monitor=monitor,
            parity=lambda name: check_golden(self.current.now.pipeline(name)),
            version=lambda name: self.current.now.pipeline(name).bundle.version,
            evidence=lambda entry: asyncio.to_thread(experiments.report_of, entry.release),
        )
        return Guard(self._ledger, senses, roll_back, self.catch_up)

    async def follow_forever(self) -> None:
        """Catch up again and again, until cancelled. While the database is away, the release in force stays."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.catch_up()
            except ServeAppError as error:
                log.warning("epoch %d stays in force: %s", self.current.now.epoch, error)
            except Exception:  # what a model's libraries raise for a bundle that only this node cannot load
                log.exception("epoch %d stays in force", self.current.now.epoch)

    async def catch_up(self) -> None:
        """Put the newest release into force. Raises JournalUnavailable, HistoryAltered, or what loading raises."""
        async with self._catching_up:
            if await asyncio.to_thread(self._ledger.newest) == self._number:
                return
            entries = await asyncio.to_thread(self._ledger.entries)
            if entries[-1].epoch != self.current.now.epoch:
                await self._switch(entries[-1], _slots(entry.release for entry in entries))
            self._number = entries[-1].number

    async def _switch(self, entry: Entry, places: Mapping[str, VariantName]) -> None:
        await self._lanes.load(entry.release.digests().values(), places)
        lanes = self._lanes.of(entry.release, places)
        after = self.current.now.followed_by(lanes, entry.release.assigned(), entry.epoch, self._offered(entry))
        # Before it answers: what is loaded proves itself within milliseconds, and nothing abstains meanwhile.
        await after.prove()
        self.current.now = after
        self._entry = entry
        log.warning("epoch %d is in force: %s by %s (%s)", entry.epoch, entry.step, entry.who, entry.why)
