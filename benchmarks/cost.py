"""`python -m benchmarks.cost`: where the time of a request goes, by process, and in a router by part of the path."""

import resource
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import click
import psutil

from benchmarks.closed_loop import closed_loop
from benchmarks.command import measuring, write
from benchmarks.parts import US, parts
from benchmarks.process import free_port
from benchmarks.record import FULL
from benchmarks.systems import BARE_ECHO, OURS, System

OUT = Path("benchmarks/results/cost.json")
SYSTEMS = (*OURS, BARE_ECHO)
KINDS = {
    "ray::ServeReplica:signals:router": "routers",
    "ray::ServeReplica": "other replicas",
    "haproxy": "HAProxy",
    "ray::MonitorActor": "monitor",
}
"""By how a command line begins; the first that fits."""
THE_REST, GENERATOR, UNUSED = "the rest of Ray", "load generator", "not used, or by others"


def kind_of(command: str) -> str:
    """Return what a process of a graph is, given its command line."""
    return next((kind for start, kind in KINDS.items() if command.rpartition("/")[2].startswith(start)), THE_REST)


def busy_s() -> dict[str, float]:
    """Return the processor time that everything this process has started has taken so far, by kind."""
    found: defaultdict[str, float] = defaultdict(float)
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied, IndexError):
            times = process.cpu_times()
            found[kind_of(process.cmdline()[0])] += times.user + times.system
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)  # of what nothing is left; since the last look, that is wrk
    found[GENERATOR] += ended.ru_utime + ended.ru_stime
    return found


def per_request(
    before: Mapping[str, float], after: Mapping[str, float], requests: int, core_s: float
) -> dict[str, float]:
    """Return µs of processor time a request, by kind, the largest first; and what of `core_s` nobody used."""
    spent = {kind: US * (after[kind] - before.get(kind, 0.0)) / requests for kind in after}
    largest = dict(sorted(spent.items(), key=lambda one: -one[1]))
    return {**largest, UNUSED: US * core_s / requests - sum(spent.values())}


def by_process(system: System, seconds: float) -> dict[str, float]:
    """Load a system as the benchmark does, and return what a request costs in each kind of process, in µs."""
    with system.running(free_port()) as load:
        closed_loop(load, FULL, seconds)
        before, started = busy_s(), time.monotonic()
        measured = closed_loop(load, FULL, seconds)
        took_s = time.monotonic() - started
        return per_request(before, busy_s(), measured.requests, (psutil.cpu_count() or 1) * took_s)


def lines(spent: Mapping[str, Mapping[str, float]], of_parts: Mapping[str, float]) -> Iterator[str]:
    """Give both as tables in Markdown."""
    kinds = list(dict.fromkeys(kind for one in spent.values() for kind in one))
    yield f"| µs of a core a request, {FULL} connections | {' | '.join(spent)} |"
    yield "|---|" + "---|" * len(spent)
    for kind in kinds:
        yield f"| {kind} | {' | '.join(f'{one.get(kind, 0.0):.0f}' for one in spent.values())} |"
    yield f"| all | {' | '.join(f'{sum(one.values()):.0f}' for one in spent.values())} |"
    yield ""
    yield "| of a router, alone in a process | µs a request |"
    yield "|---|---|"
    yield from (f"| {part} | {us:.0f} |" for part, us in of_parts.items())


@click.command()
@click.option("--seconds", type=click.IntRange(1), default=10, show_default=True, help="Of each measurement.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(seconds: int, out: Path) -> None:
    """Say where the time of a request goes, in µs of a core."""
    with measuring():
        spent = {system.name: by_process(system, seconds) for system in SYSTEMS}
        of_parts = parts()
    for line in lines(spent, of_parts):
        click.echo(line)
    write(out, us_by_process=spent, us_by_part=of_parts)


if __name__ == "__main__":
    main()
