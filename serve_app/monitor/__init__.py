"""What the graph has been doing, whether that is as it should be, and who is told when it is not."""

from serve_app.monitor.alerts import Alert, AlertBook, AlertEvent, AlertState
from serve_app.monitor.gathering import Gathering
from serve_app.monitor.memory import memory_in_use
from serve_app.monitor.observation import Answered, Heard, Kind, Observation, Told, observations, seen_of
from serve_app.monitor.rules import Matured, Reading, accuracy, readings, shift
from serve_app.monitor.state import REMEMBERED, MonitorState, failures

__all__ = [
    "REMEMBERED",
    "Alert",
    "AlertBook",
    "AlertEvent",
    "AlertState",
    "Answered",
    "Gathering",
    "Heard",
    "Kind",
    "Matured",
    "MonitorState",
    "Observation",
    "Reading",
    "Told",
    "accuracy",
    "failures",
    "memory_in_use",
    "observations",
    "readings",
    "seen_of",
    "shift",
]
