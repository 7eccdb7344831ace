"""What Ray Serve measures of its event loops, under the same labels in every process.

Ray Serve 2.60 gives a replica's loops the labels `deployment` and `application`; the loop on which its handles run,
and those of proxies, have the same metrics without. With OpenCensus, the labels of a metric are those that a process
gave it last. So when a replica reports (every 10 s) before it first calls a handle, its node's agent has values under
more labels than it knows, and answers every scrape of that node with a 500 until the replica is gone
(`to_prometheus_metrics` in ray/_private/metrics_agent.py).
"""

from typing import Any

from ray.serve._private.event_loop_monitoring import EventLoopMonitor

_begin = EventLoopMonitor.__init__


def _without_more(monitor: EventLoopMonitor, *args: Any, extra_tags: object = None, **more: Any) -> None:  # noqa: ARG001
    _begin(monitor, *args, **more)


def label_alike() -> None:
    """Leave out the labels that only some have, in this process: before Ray Serve begins to measure there."""
    EventLoopMonitor.__init__ = _without_more  # type: ignore[assignment, method-assign]
