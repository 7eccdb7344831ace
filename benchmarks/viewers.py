"""`python -m benchmarks.viewers`: what it costs that people look at the dashboard."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import click
import psutil

from benchmarks.closed_loop import Measured, closed_loop, in_turn
from benchmarks.command import measuring, write
from benchmarks.process import free_port
from benchmarks.record import FULL
from benchmarks.systems import FUSED, STAGED, System, WrongAnswer
from deployments import processes, runs

OUT = Path("benchmarks/results/viewers.json")
VIEWERS = 5
SAID = "{system}: {ratio:.3f} of {nobody_per_s:,.0f}/s; when idle, {share_of_the_machine:.3f} of the machine"


class _Viewer:
    """Somebody who looks: follows the events as the page does, and counts what came."""

    def __init__(self, url: str) -> None:
        self._at = urlsplit(url)
        self._left = threading.Event()
        self.messages = 0
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        # With as little work as can be, since it shares the cores with what is measured: a browser has its own.
        connection = HTTPConnection(self._at.netloc, timeout=30)
        while not self._left.is_set():
            connection.request("GET", "/v1/events")
            response = connection.getresponse()
            while chunk := response.read1(1 << 16):
                self.messages += chunk.startswith(b"data: ")
        connection.close()

    def leave(self) -> None:
        self._left.set()
        self._thread.join()


@contextmanager
def viewers(url: str, n: int) -> Iterator[list[_Viewer]]:
    """Let so many look until the block ends."""
    looking = [_Viewer(url) for _ in range(n)]
    try:
        yield looking
    finally:
        for one in looking:
            one.leave()


def _cpu_s(port: int) -> float:
    """Return what the processes of the graph at a port have computed so far: of all of them, Ray's own too."""
    (run,) = runs.known(runs.state_dir(os.environ, Path.home()), port)
    times = [process.cpu_times() for process in processes.of(run.run_id)]
    return sum(one.user + one.system for one in times)


def idle(port: int, rounds: int, seconds: float) -> dict[bool, float]:
    """Return what a graph that nobody asks computes, in ms a second, with nobody and with VIEWERS: medians, in turn.

    Throughput on a shared machine wanders by several percent; this does not.
    """
    found: dict[bool, list[float]] = {False: [], True: []}
    for i in range(2 * rounds):
        looked = i % 4 in (1, 2)
        with viewers(f"http://127.0.0.1:{port}", VIEWERS if looked else 0):
            before, started = _cpu_s(port), time.monotonic()
            time.sleep(seconds)
            found[looked].append(1e3 * (_cpu_s(port) - before) / (time.monotonic() - started))
    return {looked: median(ms) for looked, ms in found.items()}


def compare(system: System, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure with nobody and with VIEWERS, in turn; return medians. Raises DidNotStart, WrongAnswer."""
    port = free_port()
    with system.running(port) as load:

        def measure(looked: bool) -> Measured:
            with viewers(f"http://127.0.0.1:{port}", VIEWERS if looked else 0) as looking:
                measured = closed_loop(load, FULL, seconds)
            if not all(one.messages for one in looking):
                raise WrongAnswer("a viewer saw nothing")
            return measured

        closed_loop(load, FULL, seconds)
        throughput = in_turn(rounds, measure)
        busy = idle(port, max(2, rounds // 2), 2 * seconds)
    nobody, somebody = (median(run.per_s for run in throughput[looked]) for looked in (False, True))
    ratios = [b.per_s / a.per_s for a, b in zip(throughput[False], throughput[True], strict=True)]
    return {
        "system": system.name,
        "nobody_per_s": nobody,
        "looked_at_per_s": somebody,
        "ratio": somebody / nobody,
        "ratios": ratios,
        "idle_cpu_ms_per_s": {"nobody": busy[False], "looked_at": busy[True]},
        "share_of_the_machine": (busy[True] - busy[False]) / 1e3 / psutil.cpu_count(),
    }


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=10, show_default=True)
@click.option("--seconds", type=click.IntRange(min=1), default=5, show_default=True, help="Of one measurement.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(rounds: int, seconds: float, out: Path) -> None:
    """Compare the throughput of the graph with nobody and with five people at its dashboard."""
    found = []
    with measuring():
        for system in (FUSED, STAGED):
            found.append(compare(system, rounds, seconds))
            click.echo(SAID.format(**found[-1]))
    write(out, connections=FULL, viewers=VIEWERS, systems=found)


if __name__ == "__main__":
    main()
