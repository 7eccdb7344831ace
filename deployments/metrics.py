"""What the graph tells Prometheus beside Ray Serve's own metrics, which count batches and see no row.

`ray_` precedes the names there. Tags are few and fixed: never a symbol or a request.
"""

from ray.serve.metrics import Counter, Gauge, Histogram

from deployments.batching import Sent

_ROWS = [1.5, 2.5, 4.5, 8.5, 16.5, 32.5, 64.5, 128.5, 256.5]
_MS = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]


class BatchMetrics:
    """The batches that one router sends for one variant."""

    def __init__(self, variant: str) -> None:
        tags = ("variant",)
        self._rows = Histogram("signalgraph_batch_rows", "Rows that left the router together.", _ROWS, tags)
        self._wait = Histogram(
            "signalgraph_batch_wait_ms", "Arrival of a batch's oldest row to the start of the batch.", _MS, tags
        )
        self._took = Histogram("signalgraph_batch_ms", "Time of a batch in all stages.", _MS, tags)
        self._outstanding = Gauge("signalgraph_outstanding_rows", "Rows that wait or are in the stages.", tags)
        for metric in (self._rows, self._wait, self._took, self._outstanding):
            metric.set_default_tags({"variant": variant})

    def sent(self, batch: Sent, outstanding: int) -> None:
        """Record a batch that has come back."""
        self._rows.observe(len(batch))
        self._wait.observe(1e3 * max(batch.waits_s))
        self._took.observe(1e3 * batch.took_s)
        self._outstanding.set(outstanding)


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
