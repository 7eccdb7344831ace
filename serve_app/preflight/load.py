"""How many rows a second the stages take in this process, and how long a batch waits for its answer."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from serve_app.doctor import Verdict
from serve_app.pipeline import Pipeline
from serve_app.preflight.subject import Found, Subject
from serve_app.types import Row

BATCHES = (1, 16, 64)
LIMIT_S = 10.0
"""For how long a batch size is measured at most."""


@dataclass(frozen=True, slots=True)
class Rate:
    """Of one batch size."""

    batch_size: int
    rows: int
    abstained: int
    rows_per_s: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        times = f"p50 {self.p50_ms:.2f} ms, p99 {self.p99_ms:.2f} ms"
        return f"batches of {self.batch_size}: {self.rows_per_s:.0f} rows/s, {times}"


def load(subject: Subject) -> Found:
    """A measurement in this process. It is no load test of a deployed graph, and says so."""
    rows = [subject.pipeline.row(request) for request in subject.requests]
    given = subject.given
    rates = [asyncio.run(measure(subject.pipeline, rows, size, given.rows, given.clock)) for size in BATCHES]
    measured, deadline = "; ".join(map(str, rates)), f"deadline {subject.deadline_ms:g} ms"
    abstained = sum(rate.abstained for rate in rates)
    if abstained:
        finding = f"{abstained} of {sum(rate.rows for rate in rates)} rows were not answered; {measured}"
        return Found(Verdict.FAIL, finding, "`signalgraph doctor` names the stage")
    if any(rate.p99_ms > subject.deadline_ms for rate in rates):
        advice = "a smaller network, a faster runtime (`signalgraph bundle export`), or a longer deadline_ms"
        return Found(Verdict.FAIL, f"{measured}: beyond the {deadline}", advice)
    return Found(
        Verdict.WARN,
        f"in this process, {measured}; {deadline}. The deployed graph was not loaded",
        "load it before it trades: `wrk`, or the like, against POST /v1/signals of the graph where it will run",
    )


async def measure(pipeline: Pipeline, rows: Sequence[Row], batch_size: int, n: int, clock: Callable[[], float]) -> Rate:
    """Take `n` rows through all stages in batches of one size, those given again and again.

    Ends before that after LIMIT_S, and with the first batch of which a row is not answered.
    """
    await pipeline.run(rows)  # the first pass is the slowest, and the golden cases take it before anybody is answered
    passes: list[float] = []
    done, abstained, started = 0, 0, clock()
    while done < n and not abstained and clock() - started < LIMIT_S:
        batch = [rows[(done + i) % len(rows)] for i in range(batch_size)]
        begun = clock()
        outcomes = await pipeline.run(batch)
        passes.append(clock() - begun)
        done += batch_size
        abstained = sum(outcome.probability is None for outcome in outcomes)
    p50, p99 = (1e3 * float(np.percentile(passes, share)) for share in (50, 99))
    return Rate(batch_size, done, abstained, done / sum(passes), p50, p99)
