"""`python -m benchmarks.soak`: minutes of steady load, and what the memory of each process does meanwhile."""

import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np
import psutil

from benchmarks.closed_loop import closed_loop
from benchmarks.command import measuring, write
from benchmarks.open_loop import open_loop
from benchmarks.process import free_port
from benchmarks.record import FULL
from benchmarks.systems import OURS, System

OUT = Path("benchmarks/results/soak.json")
SHARE = 0.7
SAMPLE_S = 5.0
WARM_UP_S = 3.0
MIB = 2**20
_NAME = 60


@dataclass(frozen=True, slots=True)
class Sample:
    """Every process, by its id, at a time in seconds."""

    t: float
    resident: Mapping[int, "Resident"]


@dataclass(frozen=True, slots=True)
class Resident:
    """The memory of one process."""

    title: str
    """What it is doing at the moment, of a worker of Ray."""
    mib: float


@dataclass(frozen=True, slots=True)
class Growth:
    """What one process did after the first part of the soak."""

    process: str
    first_mib: float
    last_mib: float
    slope_mib_per_min: float


def resident() -> dict[int, Resident]:
    """Return the resident memory of everything that this process has started, by process id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            program, *arguments = process.cmdline() or [process.name()]
            title = " ".join([Path(program).name, *arguments])[:_NAME]
            found[process.pid] = Resident(title, process.memory_info().rss / MIB)
    return found


@contextmanager
def watching(samples: list[Sample], every_s: float) -> Iterator[None]:
    """Add a sample every few seconds until the block ends."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(every_s):
            samples.append(Sample(time.monotonic(), resident()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def growth(samples: Sequence[Sample]) -> list[Growth]:
    """Fit a line through the latter four fifths of every process that lived through them; steepest first."""
    kept = samples[len(samples) // 5 :]
    if len(kept) < 2:
        return []
    minutes = np.array([sample.t for sample in kept]) / 60
    found = []
    for pid in set.intersection(*(set(sample.resident) for sample in kept)):
        values = np.array([sample.resident[pid].mib for sample in kept])
        slope = float(np.polyfit(minutes - minutes[0], values, 1)[0])
        found.append(Growth(f"{kept[0].resident[pid].title} [{pid}]", float(values[0]), float(values[-1]), slope))
    return sorted(found, key=lambda one: -one.slope_mib_per_min)


def soak(system: System, seconds: float) -> tuple[dict[int, int], list[Sample]]:
    """Ask at SHARE of the capacity for some time; return how often each status came, and the samples."""
    samples: list[Sample] = []
    with system.running(free_port()) as load:
        closed_loop(load, FULL, WARM_UP_S)
        rate = SHARE * closed_loop(load, FULL, WARM_UP_S).per_s
        click.echo(f"{system.title}: {rate:,.0f} requests/s for {seconds:g} s")
        with watching(samples, SAMPLE_S):
            counts = open_loop(load, rate, seconds).counts()
    return counts, samples


@click.command()
@click.option("--topology", type=click.Choice([one.name for one in OURS]), default=OURS[0].name, show_default=True)
@click.option("--minutes", type=click.FloatRange(min=0.5), default=10.0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(topology: str, minutes: float, out: Path) -> None:
    """Load one of our graphs, and print how fast each process grew; exit with 1 when an answer was lost or an error."""
    (system,) = (one for one in OURS if one.name == topology)
    with measuring():
        counts, samples = soak(system, 60 * minutes)
    grown = growth(samples)
    for one in grown:
        click.echo(
            f"{one.slope_mib_per_min:+7.2f} MiB/min  {one.first_mib:6.0f} → {one.last_mib:6.0f} MiB  {one.process}"
        )
    click.echo(f"answers by status (0: none): {counts}")
    write(out, topology=topology, minutes=minutes, answers=counts, processes=[asdict(one) for one in grown])
    sys.exit(0 if counts.keys() <= {200, 429, 503} else 1)


if __name__ == "__main__":
    main()
