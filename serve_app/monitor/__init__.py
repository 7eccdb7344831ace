"""What the graph has been doing, whether that is as it should be, and who is told when it is not."""

from serve_app.monitor.alerts import Alert, AlertBook, AlertState, gone
from serve_app.monitor.gathering import Gathering
from serve_app.monitor.memory import memory_in_use
from serve_app.monitor.observation import Heard, Learnt, Told
from serve_app.monitor.outcomes import Judged, effective_size, loss, losses
from serve_app.monitor.rules import Reading, accuracy, latest, readings, shift, side
from serve_app.monitor.state import REMEMBERED, MonitorState, failures

__all__ = [
    "REMEMBERED",
    "Alert",
    "AlertBook",
    "AlertState",
    "Gathering",
    "Heard",
    "Judged",
    "Learnt",
    "MonitorState",
    "Reading",
    "Told",
    "accuracy",
    "effective_size",
    "failures",
    "gone",
    "latest",
    "loss",
    "losses",
    "memory_in_use",
    "readings",
    "shift",
    "side",
]
