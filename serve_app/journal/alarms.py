"""The alerts that fired and were resolved, for good."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Engine, case, select

from serve_app.config import AlertName
from serve_app.journal.schema import alerts, decisions
from serve_app.journal.store import answering, insert_if_absent
from serve_app.types import VariantName

Event = Mapping[str, Any]
"""Values by the columns of the table `alerts`, and `model_version`, which no column keeps."""
_COLUMNS = tuple(column.name for column in alerts.columns)
_LOOKED_AT = 10_000
"""Decisions before an event among which the one of its variant is sought: it may be far back, with no index."""
_BEFORE = (
    select(decisions.c.variant, decisions.c.model_version, decisions.c.at)
    .where(decisions.c.at <= alerts.c.since)
    .order_by(decisions.c.at.desc())
    .limit(_LOOKED_AT)
    .correlate(alerts)
    .subquery()
)
_ANSWERED_THEN = (  # in the order of those, so that each database looks no further than the first
    select(_BEFORE.c.model_version)
    .where(_BEFORE.c.variant == alerts.c.subject)
    .limit(1)
    .correlate(alerts)
    .scalar_subquery()
)
_MODEL_VERSION = case(
    (alerts.c.alert == AlertName.FEATURE_DRIFT, alerts.c.subject),
    (alerts.c.subject.in_(VariantName), _ANSWERED_THEN),
)
"""The version that is the subject, or that the variant answered with then; null of the whole graph, or not found."""


class Alarms:
    """The events of alerts, by their ids."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, events: Sequence[Event]) -> None:
        """Write events down; one that is there already does no harm. Raises JournalUnavailable."""
        with answering(), self._engine.begin() as connection:
            kept = [{column: event[column] for column in _COLUMNS} for event in events]
            connection.execute(insert_if_absent(self._engine, alerts), kept)

    def latest(self, n: int) -> list[Event]:
        """Return the newest `n` events, oldest first. Raises JournalUnavailable."""
        query = (
            select(alerts, _MODEL_VERSION.label("model_version"))
            .order_by(alerts.c.since.desc(), alerts.c.id.desc())
            .limit(n)
        )
        with answering(), self._engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        return [{str(name): value for name, value in row.items()} for row in found[::-1]]
