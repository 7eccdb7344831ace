"""What users got: every answer is looked at, and summed up every second."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np
import orjson

from serve_app.types import Status

_SHOWN = 120


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: a decision, an abstention, or a fault."""

    queue_ms: float | None = None
    """How long the row of a decision waited in the router."""
    abstained: bool = False
    fault: str | None = None
    """What is wrong; None with a decision and with an abstention."""


def read_answer(status: int, body: bytes) -> Answer:
    """Look at an answer of POST /v1/signals; status 0 stands for a lost connection."""
    if status == 0:
        return Answer(fault="no answer")
    try:
        document = orjson.loads(body)
        if status != 200:
            # The code, since the message may tell numbers that differ in each.
            return Answer(fault=f"HTTP {status}: {document['code']}")
        if document["status"] == Status.ABSTAIN:
            return Answer(abstained=True)
        if document["status"] == Status.OK:
            return Answer(queue_ms=float(document["timings_ms"]["queue"]))
    except (ValueError, LookupError, TypeError):
        pass
    return Answer(fault=f"HTTP {status}: {body[:_SHOWN].decode(errors='replace')}")


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of times in ms."""

    p50: float
    p95: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """Return those of some values; None when there are none."""
        return cls(*np.percentile(values, [50, 95]).round(2).tolist()) if values else None


@dataclass(frozen=True, slots=True)
class Second:
    """What users got in about one second; the three counts are apart from each other."""

    t: float
    """When it ended, Unix time."""
    length_s: float
    users: int
    decisions: int
    abstentions: int
    faults: dict[str, int]
    latency_ms: Percentiles | None
    """Of all answers, as users see it."""
    queue_ms: Percentiles | None
    """Of decisions, as the router says in them."""

    @property
    def failed(self) -> int:
        """Requests without a decision or an abstention."""
        return sum(self.faults.values())

    @property
    def requests(self) -> int:
        """All that were answered, or lost."""
        return self.decisions + self.abstentions + self.failed

    @property
    def per_s(self) -> float:
        """Requests a second; its length is seldom exactly one."""
        return self.requests / self.length_s

    def to_json(self) -> bytes:
        """Return one line."""
        return orjson.dumps(asdict(self)) + b"\n"

    @classmethod
    def from_json(cls, line: bytes) -> Self:
        """Read one line."""
        found: dict[str, Any] = orjson.loads(line)
        times = {name: found[name] and Percentiles(**found[name]) for name in ("latency_ms", "queue_ms")}
        return cls(**{**found, **times})


@dataclass(slots=True)
class Tally:
    """Adds up answers until the second is over."""

    since: float
    decisions: int = 0
    abstentions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    latencies_ms: list[float] = field(default_factory=list)
    queues_ms: list[float] = field(default_factory=list)

    def add(self, answer: Answer, latency_ms: float) -> None:
        """Take in one answer."""
        self.latencies_ms.append(latency_ms)
        if answer.fault is not None:
            self.faults[answer.fault] += 1
        elif answer.abstained:
            self.abstentions += 1
        else:
            self.decisions += 1
        if answer.queue_ms is not None:
            self.queues_ms.append(answer.queue_ms)

    def close(self, now: float, users: int) -> Second:
        """Return what came since it began."""
        latency, queue = Percentiles.of(self.latencies_ms), Percentiles.of(self.queues_ms)
        counts = self.decisions, self.abstentions, dict(self.faults)
        return Second(now, now - self.since, users, *counts, latency, queue)
