"""Alerts: pending, firing, resolved. Each is told of once when it fires and once when it is resolved."""

import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from serve_app.config import AlertName
from serve_app.monitor.rules import RETRAINING, Reading


class AlertState(StrEnum):
    """Where an alert is."""

    PENDING = "pending"
    FIRING = "firing"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """Something that is wrong, or was."""

    alert: AlertName
    subject: str | None
    state: AlertState
    since: datetime
    """When it got into this state."""
    value: float | None
    limit: float
    message: str
    well_since: datetime | None = None
    """Of one that fires: since when it would not."""


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """An alert that fires, or is resolved."""

    id: str
    at: datetime
    alert: AlertName
    subject: str | None
    state: AlertState
    value: float | None
    limit: float
    message: str

    @property
    def wants_retraining(self) -> bool:
        """Whether it says that the model should be trained again."""
        return self.state is AlertState.FIRING and self.alert in RETRAINING


Key = tuple[AlertName, str | None]


class AlertBook:
    """Every alert and where it is. Not thread-safe."""

    def __init__(
        self,
        pending_s: float,
        resolve_after_s: float,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._pending = timedelta(seconds=pending_s)
        self._resolve_after = timedelta(seconds=resolve_after_s)
        self._new_id = new_id
        self._alerts: dict[Key, Alert] = {}

    def restore(self, events: Iterable[AlertEvent]) -> None:
        """Take over what was told before, oldest first: what fires already does not fire again."""
        told = {(event.alert, event.subject): event for event in events}
        for key in told.keys() - self._alerts.keys():
            event = told[key]
            self._alerts[key] = Alert(*key, event.state, event.at, event.value, event.limit, event.message)

    def update(self, measured: Iterable[Reading], now: datetime) -> list[AlertEvent]:
        """Take in measurements; return what there is to tell. One without a value changes nothing."""
        said = (self._updated(reading, now) for reading in measured if reading.value is not None)
        return [event for event in said if event is not None]

    def alerts(self) -> list[Alert]:
        """Return those that are pending or firing, the oldest first."""
        now = [alert for alert in self._alerts.values() if alert.state is not AlertState.RESOLVED]
        return sorted(now, key=lambda alert: alert.since)

    def _updated(self, reading: Reading, now: datetime) -> AlertEvent | None:
        key = reading.alert, reading.subject
        before = self._alerts.get(key)
        if before is None or before.state is AlertState.RESOLVED:
            if not reading.breached:
                return None
            before = self._set(key, reading, AlertState.PENDING, now)
        if before.state is AlertState.PENDING:
            return self._while_pending(key, before, reading, now)
        return self._while_firing(key, before, reading, now)

    def _while_pending(self, key: Key, before: Alert, reading: Reading, now: datetime) -> AlertEvent | None:
        if not reading.breached:
            del self._alerts[key]
            return None
        if now - before.since < self._pending:
            return None
        return self._told(self._set(key, reading, AlertState.FIRING, now))

    def _while_firing(self, key: Key, before: Alert, reading: Reading, now: datetime) -> AlertEvent | None:
        if reading.breached:
            self._alerts[key] = replace(before, value=reading.value, message=reading.message, well_since=None)
            return None
        well_since = before.well_since or now
        if now - well_since < self._resolve_after:
            self._alerts[key] = replace(before, well_since=well_since)
            return None
        return self._told(self._set(key, reading, AlertState.RESOLVED, now))

    def _set(self, key: Key, reading: Reading, state: AlertState, now: datetime) -> Alert:
        made = Alert(*key, state, now, reading.value, reading.limit, reading.message)
        self._alerts[key] = made
        return made

    def _told(self, alert: Alert) -> AlertEvent:
        return AlertEvent(
            self._new_id(),
            alert.since,
            alert.alert,
            alert.subject,
            alert.state,
            alert.value,
            alert.limit,
            alert.message,
        )
