"""Alerts: pending, firing, resolved. Each is told of once when it fires and once when it is resolved."""

import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from serve_app.config import AlertName, AlertsConfig
from serve_app.monitor.rules import RETRAINING, Reading
from serve_app.monitor.state import MonitorState
from serve_app.types import VariantName

_ALERTS = uuid.UUID("0f3b1c52-8d0e-5a67-9a51-3f7d2c6b4e10")
"""Namespace of their ids."""


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
    model_version: str | None = None
    """Of the model that it is about; None: about none, or it is not known about which."""

    @property
    def id(self) -> str:
        """What tells it from any other (UUIDv5): the same, whoever tells of it how many times."""
        return str(uuid.uuid5(_ALERTS, f"{self.alert}/{self.subject}/{self.state}/{self.since.isoformat()}"))

    @property
    def wants_retraining(self) -> bool:
        """Whether it says that the model should be trained again."""
        return self.state is AlertState.FIRING and self.alert in RETRAINING

    def document(self) -> dict[str, Any]:
        """Return it with its id."""
        return {"id": self.id, **asdict(self)}


def gone(alert: Alert, state: MonitorState, config: AlertsConfig) -> str | None:
    """Return why nobody will measure again what an alert is about, or None while somebody may."""
    if not config.has(alert.alert):
        return f"the rule {alert.alert} is off"
    if alert.subject is None:
        return None
    if alert.alert is AlertName.FEATURE_DRIFT:
        return None if state.serves(alert.subject) else f"{alert.subject} answers nobody any more"
    if state.is_still(VariantName(alert.subject), alert.model_version):
        return None
    return f"{alert.model_version or 'that model'} answers nobody as {alert.subject} any more"


def _nothing_goes(_: Alert) -> None:
    """Whatever an alert is about will be measured again."""


Key = tuple[AlertName, str | None]


class AlertBook:
    """Every alert and where it is. Not thread-safe."""

    def __init__(self, pending_s: float, resolve_after_s: float) -> None:
        self._pending = timedelta(seconds=pending_s)
        self._resolve_after = timedelta(seconds=resolve_after_s)
        self._alerts: dict[Key, Alert] = {}
        self._well_since: dict[Key, datetime] = {}
        """Of those that fire: since when they would not."""

    def restore(self, told: Iterable[Alert]) -> None:
        """Take over what was told before, oldest first: what fires already does not fire again."""
        self._alerts = {**{(alert.alert, alert.subject): alert for alert in told}, **self._alerts}

    def update(
        self, measured: Iterable[Reading], now: datetime, why_gone: Callable[[Alert], str | None] = _nothing_goes
    ) -> list[Alert]:
        """Take in measurements; return what fires now, or is resolved. One without a value changes nothing.

        `why_gone` says why what an alert is about will never be measured again, or None: that resolves it at once.
        """
        ended = list(self._ended(why_gone, now))
        said = (self._updated(reading, now) for reading in measured if reading.value is not None)
        return ended + [alert for alert in said if alert is not None]

    def alerts(self) -> list[Alert]:
        """Return those that are pending or firing, the oldest first."""
        now = [alert for alert in self._alerts.values() if alert.state is not AlertState.RESOLVED]
        return sorted(now, key=lambda alert: alert.since)

    def _ended(self, why_gone: Callable[[Alert], str | None], now: datetime) -> Iterator[Alert]:
        for alert in self.alerts():
            key = alert.alert, alert.subject
            why = why_gone(alert)
            if why is not None and alert.state is AlertState.PENDING:
                del self._alerts[key]
            elif why is not None:
                self._well_since.pop(key, None)
                self._alerts[key] = replace(alert, state=AlertState.RESOLVED, since=now, message=why)
                yield self._alerts[key]

    def _updated(self, reading: Reading, now: datetime) -> Alert | None:
        key = reading.alert, reading.subject
        before = self._alerts.get(key)
        if before is None or before.state is AlertState.RESOLVED:
            ended_now = before is not None and before.since == now  # of one moment, nobody could tell which was first
            if not reading.breached or ended_now:
                return None
            before = self._set(key, reading, AlertState.PENDING, now)
        if before.state is AlertState.PENDING:
            return self._while_pending(key, before, reading, now)
        return self._while_firing(key, before, reading, now)

    def _while_pending(self, key: Key, before: Alert, reading: Reading, now: datetime) -> Alert | None:
        if not reading.breached:
            del self._alerts[key]
            return None
        if now - before.since < self._pending:
            return None
        return self._set(key, reading, AlertState.FIRING, now)

    def _while_firing(self, key: Key, before: Alert, reading: Reading, now: datetime) -> Alert | None:
        if reading.breached:
            version = before.model_version or reading.model_version
            self._alerts[key] = replace(
                before, value=reading.value, limit=reading.limit, message=reading.message, model_version=version
            )
            self._well_since.pop(key, None)
            return None
        if now - self._well_since.setdefault(key, now) < self._resolve_after:
            return None
        del self._well_since[key]
        return self._set(key, reading, AlertState.RESOLVED, now)

    def _set(self, key: Key, reading: Reading, state: AlertState, now: datetime) -> Alert:
        made = Alert(*key, state, now, reading.value, reading.limit, reading.message, reading.model_version)
        self._alerts[key] = made
        return made
