"""One visit of a running system: every load that it is measured under."""

import json
import time
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin

from benchmarks import record
from benchmarks.closed_loop import Load, closed_loop
from benchmarks.open_loop import open_loop
from benchmarks.record import CONNECTIONS, FULL
from benchmarks.systems import bars_body
from benchmarks.workload import questions

WARM_UP_S = 2.0
SETTLE_S = 1.0
"""Until a proxy has as many connections as clients have."""
LADDER = (0.25, 0.5, 0.75, 0.9)
"""Rates of the open loop, as shares of the capacity in the closed loop."""
STEP_S = 2.0
BOUND_MS = 100.0
SPARE = 16
"""Connections beyond twice those that a rate needs whose every answer keeps within the bound."""
OPEN_S = 6.0
RECOVERED = 0.9
PATIENCE_S = 10.0
_REFUSALS = (429, 503)

Measured = dict[str, float]


def closed(load: Load, seconds: float) -> Measured:
    """Measure throughput and latency against connections."""
    closed_loop(load, FULL, WARM_UP_S)
    measured: Measured = {}
    for n in CONNECTIONS:
        closed_loop(load, n, SETTLE_S)
        seen = closed_loop(load, n, seconds)
        measured |= {record.per_s(n): seen.per_s}
        measured |= {record.latency(50, n): seen.p50_ms, record.latency(99, n): seen.p99_ms}
    return measured


def ladder(load: Load, capacity: float) -> Measured:
    """Raise the rate of an open loop for as long as latency keeps within the bound."""
    highest = 0.0
    for share in LADDER:
        rate = share * capacity
        answers = open_loop(load, rate, STEP_S, connections=SPARE + round(2 * rate * BOUND_MS / 1e3))
        if set(answers.counts()) != {200} or answers.percentile(99) >= BOUND_MS:
            break
        highest = rate
    return {record.RATE: highest}


def overload(load: Load, capacity: float) -> Measured:
    """Ask at half, at all and at twice of what the system can do, and see how soon it has recovered."""
    half, full, twice = (open_loop(load, share * capacity, OPEN_S) for share in (0.5, 1.0, 2.0))
    recovered = _recovery(load, capacity)
    counts = twice.counts()
    refused = sum(counts.get(code, 0) for code in _REFUSALS)
    return {
        record.HALF_P99: half.percentile(99),
        record.CAPACITY_P99: full.percentile(99),
        record.TWICE_P99: twice.percentile(99),
        record.TWICE_GOOD: counts.get(200, 0) / OPEN_S,
        record.TWICE_REFUSED: refused / twice.asked,
        record.TWICE_OTHER: twice.asked - refused - counts.get(200, 0),
        record.RECOVERY_S: recovered,
    }


def _recovery(load: Load, capacity: float) -> float:
    """Return when a second began in which the system was as fast as before; PATIENCE_S if there was none."""
    began = time.perf_counter()
    while (since := time.perf_counter() - began) < PATIENCE_S:
        if closed_loop(load, FULL, 1.0).per_s >= RECOVERED * capacity:
            return since
    return PATIENCE_S


def raw_bars(load: Load, seconds: float) -> Measured:
    """Measure the same with features that the server computes."""
    bars = Load(load.url, [bars_body(question) for question in questions()])
    closed_loop(bars, FULL, WARM_UP_S)
    return {record.BARS: closed_loop(bars, FULL, seconds).per_s}


def monitored(load: Load, seconds: float) -> dict[str, Any]:
    """Return how rows were batched, and what stages took, while FULL connections asked; from our own monitor.

    To be asked first: the percentiles of the stages are of the latest answers, whatever the load was.
    """
    closed_loop(load, FULL, WARM_UP_S)
    before = _production(load)["rows_by_batch_size"]
    closed_loop(load, FULL, seconds)
    seen = _production(load)
    sizes = {size: rows - before.get(size, 0) for size, rows in seen["rows_by_batch_size"].items()}
    return {
        "rows_by_batch_size": {size: rows for size, rows in sizes.items() if rows},
        "stages_ms": seen["stages_ms"],
        "latency_ms": seen["latency_ms"],
    }


def _production(load: Load) -> Mapping[str, Any]:
    with urllib.request.urlopen(urljoin(load.url, "/v1/monitor"), timeout=30) as answer:  # noqa: S310  a URL of ours
        variants: Mapping[str, Any] = json.loads(answer.read())["variants"]
    return dict(variants["production"])
