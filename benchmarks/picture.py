"""The pictures of a run: throughput and latency against connections, batch sizes, and where the time goes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure

from benchmarks.record import CONNECTIONS, FULL, Record, latency, per_s

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
_GAP = float("nan")


def draw(run: Record, path: Path) -> None:
    """Write the picture as PNG."""
    figure = Figure((13, 13), layout="constrained")
    (speed, one), (half, tail), (sizes, stages) = figure.subplots(3, 2)
    figure.suptitle(run.where)
    shown = list(run.measured())
    _against_connections(speed, run, shown, per_s, "requests/s")
    _against_connections(half, run, shown, lambda n: latency(50, n), "p50, ms")
    _against_connections(tail, run, shown, lambda n: latency(99, n), "p99, ms")
    _legend(one, speed)
    if run.batches:
        _sizes(sizes, run)
        _stages(stages, run)
    figure.savefig(path, format="png", dpi=DPI)


def _against_connections(
    axes: "Axes", run: Record, names: Sequence[str], measure: Callable[[int], str], label: str
) -> None:
    for number, name in enumerate(names):
        values = [run.median(name, measure(n)) for n in CONNECTIONS]
        if any(value is not None for value in values):
            plotted = [_GAP if value is None else value for value in values]
            axes.plot(
                CONNECTIONS, plotted, label=run.titles[name], color=f"C{number % 10}", **_style(run, name, number)
            )
    axes.set(xscale="log", yscale="log", xlabel="connections", ylabel=label)
    axes.set_xticks(CONNECTIONS, list(map(str, CONNECTIONS)))
    axes.grid(alpha=0.3)


def _style(run: Record, name: str, number: int) -> dict[str, Any]:
    ours = name in run.batches
    return {
        "linewidth": 2.5 if ours else 1.2,
        "marker": "o" if ours else ".",
        "linestyle": "-" if number < 10 else "--",
    }


def _legend(axes: "Axes", of: "Axes") -> None:
    axes.axis("off")
    axes.legend(*of.get_legend_handles_labels(), loc="center", frameon=False)


def _sizes(axes: "Axes", run: Record) -> None:
    for name, seen in run.batches.items():
        sizes = sorted((int(size), rows) for size, rows in seen["rows_by_batch_size"].items())
        total, below, shares = sum(rows for _, rows in sizes), 0, []
        for _, rows in sizes:
            below += rows
            shares.append(below / total)
        axes.step([size for size, _ in sizes], shares, where="post", label=run.titles[name])
    axes.set(xlabel=f"batch size, at {FULL} connections", ylabel="share of rows in batches up to it", ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)


def _stages(axes: "Axes", run: Record) -> None:
    """Bars of the median of each stage, one system beside the other."""
    names = list(run.batches)
    stages = list(dict.fromkeys(stage for name in names for stage in run.batches[name]["stages_ms"]))
    left = [0.0] * len(names)
    for stage in stages:
        widths = [(run.batches[name]["stages_ms"].get(stage) or {"p50": 0.0})["p50"] for name in names]
        axes.barh([run.titles[name] for name in names], widths, left=left, label=stage)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set(xlabel=f"ms, median of each stage at {FULL} connections")
    axes.legend(frameon=False)
