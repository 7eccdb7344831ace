"""What the graph tells Prometheus beside Ray Serve's own metrics, which count batches and see no row.

`ray_` precedes the names there. Tags are few and fixed: never a symbol or a request.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.serve.metrics import Counter, Gauge, Histogram
from ray.util import metrics as of_actors

from deployments.batching import Sent
from deployments.event_loops import label_alike

_ROWS = [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5, 256.5]
_MS = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]
_TELL_S = 0.1
"""For how long refusals gather."""

label_alike()  # Ray Serve imports this with the code of a replica, before it measures anything there


class BatchMetrics:
    """The batches that one router sends for one variant."""

    def __init__(self, variant: str) -> None:
        tags = ("variant",)
        self._rows = Histogram("signalgraph_batch_rows", "Rows that left the router together.", _ROWS, tags)
        self._wait = Histogram(
            "signalgraph_batch_wait_ms", "Arrival of a batch's oldest row to the start of the batch.", _MS, tags
        )
        self._took = Histogram(
            "signalgraph_batch_ms", "Time of a batch in all stages, or until it was given up.", _MS, tags
        )
        self._outstanding = Gauge("signalgraph_outstanding_rows", "Rows that wait or are in the stages.", tags)
        for metric in (self._rows, self._wait, self._took, self._outstanding):
            metric.set_default_tags({"variant": variant})

    def sent(self, batch: Sent, outstanding: int) -> None:
        """Record a batch that is not away any more."""
        self._rows.observe(len(batch))
        self._wait.observe(1e3 * max(batch.waits_s))
        self._took.observe(1e3 * batch.took_s)
        self._outstanding.set(outstanding)


class IngressMetrics:
    """What one router, and HAProxy for it, does not let in."""

    def __init__(self, also: Callable[[int], None]) -> None:
        """`also` hears of what is counted, too."""
        about = "Requests that were refused unread, because routers had as many as they take."
        self._refused = Counter("signalgraph_refused", about)
        self._also = also
        self._waiting = 0

    def refused(self, n: int) -> None:
        """Count some. Those of a flood are told together: each telling costs a twentieth of a refusal."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_TELL_S, self._tell)
        self._waiting += n

    def _tell(self) -> None:
        refused, self._waiting = self._waiting, 0
        self._refused.inc(refused)
        self._also(refused)


class ShadowMetrics:
    """What the shadow of one router could not score."""

    def __init__(self) -> None:
        self._dropped = Counter("signalgraph_shadow_dropped", "Requests that the other variant did not score.")

    def dropped(self, n: int) -> None:
        """Count some."""
        self._dropped.inc(n)


class HopMetrics:
    """What reaches one replica of a stage; Ray Serve itself tags it with deployment and application."""

    def __init__(self) -> None:
        self._rows = Histogram("signalgraph_hop_rows", "Rows that one call of a stage carried.", _ROWS)

    def called(self, rows: int) -> None:
        """Record one call."""
        self._rows.observe(rows)


class MonitorMetrics:
    """What the monitor knows, so that Prometheus and `GET /v1/monitor` say the same.

    Counts are gauges that only rise: a monitor that comes back goes on from the journal's count, not from 0. `rate()`
    reads them like counters.
    """

    def __init__(self) -> None:
        self._decisions = of_actors.Gauge(
            "signalgraph_decisions", "Decisions that rest on a model.", ("variant", "action")
        )
        self._abstentions = of_actors.Gauge(
            "signalgraph_abstentions", "Decisions without a model.", ("variant", "reason")
        )
        self._errors = of_actors.Gauge("signalgraph_errors", "Requests that were answered with an error.", ("code",))
        self._prediction = of_actors.Gauge("signalgraph_mean_prediction", "Of the latest window.", ("variant",))
        about = "Of the latest predictions whose outcome is known."
        self._accuracy = of_actors.Gauge("signalgraph_rolling_accuracy", about, ("variant",))
        self._dropped = of_actors.Gauge(
            "signalgraph_dropped_observations", "Decisions that the monitor did not hear of."
        )
        about = "Of the nodes of routers and stages, and their GPUs: the largest share in use."
        self._memory = of_actors.Gauge("signalgraph_memory_share", about)
        about = "Distance (Kolmogorov-Smirnov) of a feature from training, as a share of what is no accident."
        self._drift = of_actors.Gauge("signalgraph_feature_drift", about, ("model_version", "feature"))
        self._firing = of_actors.Gauge("signalgraph_alert_firing", "1 while an alert fires.", ("alert", "subject"))
        self._fired: set[tuple[str, str]] = set()

    def show(self, snapshot: Mapping[str, Any]) -> None:
        """Show a snapshot of the monitor."""
        for variant, counted in snapshot["variants"].items():
            self._show_variant(variant, counted)
        for variant, right in snapshot["rolling_accuracy"].items():
            if right is not None:
                self._accuracy.set(right, {"variant": variant})
        for code, n in snapshot["errors"].items():
            self._errors.set(n, {"code": code})
        self._dropped.set(snapshot["dropped_observations"])
        if snapshot["memory"]:
            self._memory.set(max(snapshot["memory"].values()))
        self._show_drift(snapshot["drift"])
        self._show_alerts(snapshot["alerts"])

    def _show_variant(self, variant: str, counted: Mapping[str, Any]) -> None:
        for action, n in counted["actions"].items():
            self._decisions.set(n, {"variant": variant, "action": action})
        for reason, n in counted["abstentions"].items():
            self._abstentions.set(n, {"variant": variant, "reason": reason})
        if counted["mean_prediction"] is not None:
            self._prediction.set(counted["mean_prediction"], {"variant": variant})

    def _show_drift(self, drift: Mapping[str, Any]) -> None:
        for bundle in drift.values():
            for feature, verdict in (bundle["features"] or {}).items():
                tags = {"model_version": bundle["model_version"], "feature": feature}
                self._drift.set(verdict["ks"] / verdict["ks_limit"], tags)

    def _show_alerts(self, alerts: Sequence[Mapping[str, Any]]) -> None:
        firing = {(one["alert"], one["subject"] or "graph") for one in alerts if one["state"] == "firing"}
        self._fired |= firing
        for alert, subject in self._fired:
            self._firing.set(float((alert, subject) in firing), {"alert": alert, "subject": subject})


class ModelMetrics:
    """What happens to the model of one variant, in whatever deployment it runs."""

    def __init__(self, variant: str) -> None:
        tags = ("variant",)
        about = "Batches for which the model's device had no memory; each halves the rows of a forward pass."
        self._out_of_memory = Counter("signalgraph_out_of_memory", about, tags)
        self._out_of_memory.set_default_tags({"variant": variant})

    def out_of_memory(self) -> None:
        """Count one."""
        self._out_of_memory.inc()
