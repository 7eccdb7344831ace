"""What the graph has been doing, whether that is as it should be, and who is told when it is not."""

from serve_app.monitor.alerts import Alert, AlertBook, AlertState
from serve_app.monitor.gathering import Gathering
from serve_app.monitor.memory import memory_in_use
from serve_app.monitor.observation import Heard, Told
from serve_app.monitor.rules import Reading, accuracy, latest, readings, shift
from serve_app.monitor.state import REMEMBERED, MonitorState, failures

__all__ = [
    "REMEMBERED",
    "Alert",
    "AlertBook",
    "AlertState",
    "Gathering",
    "Heard",
    "MonitorState",
    "Reading",
    "Told",
    "accuracy",
    "failures",
    "latest",
    "memory_in_use",
    "readings",
    "shift",
]
