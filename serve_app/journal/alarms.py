"""The alerts that fired and were resolved, for good."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, select

from serve_app.journal.schema import alerts
from serve_app.journal.store import answering, insert_if_absent

Event = Mapping[str, Any]
"""Values by the columns of the table `alerts`."""


class Alarms:
    """The events of alerts, by their ids."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, events: Sequence[Event]) -> None:
        """Write events down; one that is there already does no harm. Raises JournalUnavailable."""
        with answering(), self._engine.begin() as connection:
            connection.execute(insert_if_absent(self._engine, alerts), list(events))

    def latest(self, n: int) -> list[Event]:
        """Return the newest `n` events, oldest first. Raises JournalUnavailable."""
        query = select(alerts).order_by(alerts.c.since.desc(), alerts.c.id.desc()).limit(n)
        with answering(), self._engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in found[::-1]]
