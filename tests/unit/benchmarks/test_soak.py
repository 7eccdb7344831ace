"""What a soak makes of its samples."""

import subprocess
import sys

import pytest

from benchmarks.soak import Resident, Sample, growth, resident, watching
from tests.waiting import wait_for


def test_growth_is_the_slope_after_the_first_part_steepest_first() -> None:
    leak = [100.0, 500.0, *(500 + 2 * i for i in range(8))]  # 2 MiB every 30 s, after a warm-up
    samples = [Sample(30.0 * i, {1: Resident("leaks", leak[i]), 2: Resident("flat", 80.0)}) for i in range(10)]
    first, second = growth(samples)
    assert (first.process, second.process) == ("leaks [1]", "flat [2]")
    assert first.slope_mib_per_min == pytest.approx(4.0)
    assert second.slope_mib_per_min == pytest.approx(0.0)
    assert (first.first_mib, first.last_mib) == (500.0, 514.0)


def test_a_process_that_came_or_went_has_no_slope() -> None:
    stays, comes = Resident("stays", 1.0), Resident("comes", 1.0)
    samples = [Sample(float(i), {1: stays, **({2: comes} if i > 5 else {})}) for i in range(10)]
    assert [one.process for one in growth(samples)] == ["stays [1]"]
    assert growth(samples[:1]) == []


def test_a_process_that_changes_its_title_is_one_process() -> None:
    titles = ("ray::Router", "ray::Router.handle")
    samples = [Sample(float(i), {7: Resident(titles[i % 2], 5.0)}) for i in range(10)]
    assert [one.process for one in growth(samples)] == ["ray::Router [7]"]


def test_every_process_that_was_started_is_watched() -> None:
    samples: list[Sample] = []
    nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"

    def inner() -> list[int]:
        return [pid for pid, one in resident().items() if "-c input()" in one.title]

    # pytest has children of its own by now: what counts is that these two are there.
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE) as outer:
        wait_for(lambda: bool(inner()), 30, lambda: str(resident()))
        with watching(samples, 0.01):
            wait_for(lambda: bool(samples), 30, lambda: "no sample")
        found = samples[0].resident
        sizes = [one.mib for pid, one in found.items() if pid == outer.pid or pid in inner()]
        outer.communicate(b"\n")
    assert len(sizes) == 2
    assert all(mib > 1 for mib in sizes)
