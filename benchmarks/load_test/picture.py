"""The picture of a load test: load, replicas, latency and faults over the same time."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from benchmarks.load_test.answers import Percentiles, Second
from benchmarks.load_test.record import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

SIZE_INCHES = (10, 11)
DPI = 110
GAP = float("nan")


def draw(record: Record, path: Path) -> None:
    """Write the picture as PNG."""
    figure = Figure(SIZE_INCHES, layout="constrained")
    load, replicas, latency, faults = figure.subplots(4, 1, sharex=True, height_ratios=[3, 3, 3, 2])
    figure.suptitle(f"Load test of {record.target}\n{record.machine}, {record.date}")
    _load(load, record)
    _replicas(replicas, record)
    _latency(latency, record)
    _faults(faults, record)
    faults.set_xlabel("seconds since the start")
    for axes in (load, replicas, latency, faults):
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        axes.grid(alpha=0.3)
    figure.savefig(path, format="png", dpi=DPI)


def _times(record: Record) -> list[float]:
    return [second.t - record.began for second in record.seconds]


def _legend(axes: "Axes", lines: Sequence["Line2D"]) -> None:
    """Above the panel, where it hides nothing."""
    axes.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(lines), frameon=False)


def _load(axes: "Axes", record: Record) -> None:
    times = _times(record)
    axes.plot(times, [second.per_s for second in record.seconds], color="tab:blue", label="requests/s")
    axes.set_ylabel("requests/s")
    users = axes.twinx()
    users.step(
        times, [second.users for second in record.seconds], where="post", color="tab:gray", label="users (right)"
    )
    users.set_ylabel("users")
    users.set_ylim(bottom=0)
    _legend(axes, [*axes.lines, *users.lines])


def _replicas(axes: "Axes", record: Record) -> None:
    times = [one.t - record.began for one in record.replicas]
    lines = []
    for name in sorted({name for one in record.replicas for name in one.running}):
        running = [one.running.get(name, 0) for one in record.replicas]
        wanted = [one.target.get(name, 0) for one in record.replicas]
        lines += axes.step(times, running, where="post", label=name)
        axes.step(times, wanted, where="post", color=lines[-1].get_color(), linestyle=":")
    axes.set_ylabel("running replicas\n(dotted: wanted)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, lines)


def _latency(axes: "Axes", record: Record) -> None:
    series: tuple[tuple[str, str, Callable[[Second], Percentiles | None]], ...] = (
        ("latency", "tab:blue", lambda second: second.latency_ms),
        ("of that in the router's queue", "tab:orange", lambda second: second.queue_ms),
    )
    times = _times(record)
    for name, colour, of in series:
        found = [of(second) for second in record.seconds]
        axes.plot(times, [one.p50 if one else GAP for one in found], color=colour, label=f"{name}, p50")
        p95 = [one.p95 if one else GAP for one in found]
        axes.plot(times, p95, color=colour, linestyle="--", linewidth=1, label="p95")
    axes.set_ylabel("ms")
    _legend(axes, axes.lines)


def _faults(axes: "Axes", record: Record) -> None:
    counts = (
        ("failed", "tab:red", [second.failed for second in record.seconds]),
        ("abstentions", "tab:orange", [second.abstentions for second in record.seconds]),
    )
    for name, colour, values in counts:
        label = f"{name}: {sum(values):,} of {record.requests:,}"
        axes.step(_times(record), values, where="post", color=colour, label=label)
    axes.set_ylabel("in the second")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(axes, axes.lines)
