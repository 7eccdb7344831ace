"""The watch: holds what the monitor knows against the rules, every second, and tells of what is wrong."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from sqlalchemy import Engine

from serve_app.config import RULES, AlertName, AlertsConfig
from serve_app.errors import HistoryAltered, JournalUnavailable, MonitorUnavailable
from serve_app.journal import Alarms, ReleaseLines, count, matured, newest_outcome
from serve_app.monitor import (
    REMEMBERED,
    Alert,
    AlertBook,
    AlertState,
    Judged,
    MonitorState,
    accuracy,
    gone,
    readings,
)
from serve_app.quality import judge
from serve_app.router.releases import Ledger
from serve_app.types import VariantName

LOOK_S = 1.0
EVENTS = 100
"""Events that are shown: the latest."""
_RESTORED = 1_000
"""Events from which it is known what fires already."""

log = logging.getLogger(__name__)


class Watch:
    """What the monitor's actor owns, and does nothing beside. Not thread-safe."""

    def __init__(
        self,
        state: MonitorState,
        config: AlertsConfig,
        connect: Callable[[], Engine] | None,
        tell: Callable[[Alert], None],
        show: Callable[[Mapping[str, Any]], None],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`connect`: to the journal's database, if any; `tell` and `show`, of events and snapshots, never wait."""
        self.state = state
        self._config = config
        self._connect = connect
        self._engine: Engine | None = None
        self._tell = tell
        self._show = show
        self._clock = clock
        self._book = AlertBook(config.pending_s, config.resolve_after_s)
        self._restored = False
        self._release = 0
        """The newest line of the ledger that was read."""
        self._shown: Mapping[str, Any] | None = None
        """The snapshot of the latest look."""
        self._judged: dict[VariantName, Judged] = {}
        self._judged_of: object = None
        """What they were judged by: they are judged again when it has changed."""
        self._events: list[Alert] = []
        self._unkept: deque[Alert] = deque(maxlen=_RESTORED if connect else 0)
        """For the journal; the oldest go when it is away for long."""

    def configure(self, config: AlertsConfig) -> None:
        """Go by other rules from now on. What fires goes on firing; how long it has been well is measured anew."""
        self._config = config
        told = self._book.alerts()
        self._book = AlertBook(config.pending_s, config.resolve_after_s)
        self._book.restore(told)

    async def watch_forever(self) -> None:
        """Look again and again, until cancelled. While the database is away, what needs it waits."""
        away = False
        while True:
            try:
                await self.look()
                away = False
            except JournalUnavailable as error:
                if not away:
                    log.warning("the monitor goes on without the journal: %s", error)
                away = True
            except Exception:  # whatever it was: a watch that ended would tell of nothing any more
                log.exception("the monitor could not look")
            self._shown = self.snapshot()
            self._show(self._shown)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Take in what the journal has, measure, and tell of what has changed.

        Raises JournalUnavailable, but not before what is known without the journal is told.
        """
        try:
            await self._take_in()
        finally:
            self._measure()
        await self._keep()

    async def _take_in(self) -> None:
        if self._connect is None:
            return
        if self._engine is None:
            self._engine = await asyncio.to_thread(self._connect)
        if not self._restored:
            await self._restore(self._engine)
        await self._follow(self._engine)
        await self._judge(self._engine)

    async def _follow(self, engine: Engine) -> None:
        """Learn whom the release in force asks, when there is another."""
        lines = ReleaseLines(engine)
        newest = await asyncio.to_thread(lines.newest)
        if newest == self._release:
            return
        try:
            entries = await asyncio.to_thread(Ledger(lines).entries)
        except HistoryAltered as error:
            log.warning("who answers is not known: %s", error)
            self.state.asked = None
        else:
            self.state.asked = entries[-1].release.assignment.asked
        self._release = newest

    async def _judge(self, engine: Engine) -> None:
        """Judge the predictions whose outcome is known, when there is another one, or another bundle is known.

        And each minute, for outcomes that were reported by a clock which is behind.
        """
        learnt = dict(self.state.learnt)
        newest = await asyncio.to_thread(newest_outcome, engine)
        now = newest, frozenset(learnt), self._clock().replace(second=0, microsecond=0)
        if newest is None or now == self._judged_of:
            return
        known = await asyncio.to_thread(matured, engine)
        self._judged = {
            name: await asyncio.to_thread(judge, one, learnt.get(one.digest)) for name, one in known.items()
        }
        self._judged_of = now

    async def _restore(self, engine: Engine) -> None:
        """Take over what a monitor before this one knew."""
        events = [_told(one) for one in await asyncio.to_thread(Alarms(engine).latest, _RESTORED)]
        counted = await asyncio.to_thread(count, engine, REMEMBERED)
        self.state.restore(counted.kinds, counted.latest)
        self._book.restore(events)
        self._events = [*events, *self._events][-EVENTS:]
        self._restored = True

    def _measure(self) -> None:
        self.state.settle()
        measured = readings(self.state, self._judged, self._config)
        has_gone = partial(gone, state=self.state, config=self._config)
        events = self._book.update(measured, self._clock(), has_gone)
        for event in events:
            log.warning("%s %s: %s (%s)", event.state, event.alert, event.message, event.subject or "the graph")
            self._tell(event)
        self._events = [*self._events, *events][-EVENTS:]
        self._unkept += events

    async def _keep(self) -> None:
        if self._engine is None or not self._unkept:
            return
        await asyncio.to_thread(Alarms(self._engine).keep, [event.document() for event in self._unkept])
        self._unkept.clear()

    def snapshot(self) -> dict[str, Any]:
        """Return what `GET /v1/monitor` answers."""
        rule = self._config.rolling_accuracy or RULES[AlertName.ROLLING_ACCURACY]  # shown whether or not it alarms
        return {
            **self.state.snapshot(),
            "rolling_accuracy": {
                str(name): accuracy(one.probabilities, one.labels, rule.window) for name, one in self._judged.items()
            },
            "outcomes": {str(name): one.document for name, one in self._judged.items()},
            **self.alerts(),
        }

    def view(self) -> dict[str, Any]:
        """Return the snapshot of the latest look, and the latest decisions: what people look at may be a second old.

        Raises MonitorUnavailable before the first look: the counts are not the journal's yet.
        """
        if self._shown is None:
            raise MonitorUnavailable("the monitor has just begun, and reads what it knew from the journal")
        return {**self._shown, "latest": self.state.tape.latest()}

    def alerts(self) -> dict[str, Any]:
        """Return what `GET /v1/alerts` answers."""
        return {
            "alerts": [alert.document() for alert in self._book.alerts()],
            "events": [
                {**event.document(), "wants_retraining": event.wants_retraining} for event in self._events[::-1]
            ],
        }


def _told(kept: Mapping[str, Any]) -> Alert:
    fields = {name: value for name, value in kept.items() if name != "id"}
    return Alert(**{**fields, "alert": AlertName(kept["alert"]), "state": AlertState(kept["state"])})
