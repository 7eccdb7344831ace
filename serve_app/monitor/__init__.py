"""What the graph has been doing: counts, latencies and actions per variant."""

from serve_app.monitor.observation import Observation, observe
from serve_app.monitor.state import MonitorState

__all__ = ["MonitorState", "Observation", "observe"]
