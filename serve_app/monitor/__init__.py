"""What the graph has been doing: counts, latencies and actions per variant."""

from serve_app.monitor.observation import Answered, Observations, answered, observe
from serve_app.monitor.state import MonitorState, failures

__all__ = ["Answered", "MonitorState", "Observations", "answered", "failures", "observe"]
