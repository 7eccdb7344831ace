"""The evidence of one experiment as a page that needs nothing else: no script, no network, plots as SVG."""

from collections.abc import Iterable, Sequence
from html import escape
from io import StringIO
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from serve_app.evidence.split import BINS, LEVEL

_COLOURS = {"production": "#1f5fa8", "candidate": "#c4541a"}
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1b1f24; background: #fff; margin: 2rem auto; max-width: 60rem;
  padding: 0 1rem }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem }
table { border-collapse: collapse } td, th { padding: .25rem .9rem .25rem 0; text-align: right }
td:first-child, th:first-child { text-align: left } tr { border-bottom: 1px solid #dde1e6 }
.verdict { border-left: .4rem solid #1f5fa8; padding: .5rem 1rem; background: #f2f5f9; margin: 1rem 0 }
.doubt { border-color: #b3261e; background: #fcefee } .plots { display: flex; flex-wrap: wrap; gap: 1rem }
svg { max-width: 100%; height: auto } small { color: #57606a }
"""


def page(report: dict[str, Any]) -> str:
    """Return the page of a report, as `Experiments.report` gives it."""
    experiment, verdict = report["experiment"], report["verdict"]
    advice = verdict["advice"].replace("_", " ")
    doubts = "".join(f'<p class="verdict doubt">Not to be believed: {escape(doubt)}.</p>' for doubt in report["doubts"])
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(experiment["name"])}</title><style>{_STYLE}</style></head><body>
<h1>{escape(experiment["name"])}</h1>
<small>since {escape(experiment["since"])}, epochs {escape(_ranges(experiment["epochs"]))}</small>
<p class="verdict"><b>{escape(advice)}</b>: {escape(verdict["because"])}.</p>{doubts}
<h2>Bars that both predicted</h2>
{_table(("", "scored", "compared", "pending", "censored", "missing"), [["", *report["paired"]["counts"].values()]])}
{_paired_scores(report["paired"]["variants"])}
<h2>What each answered</h2>
{_answered(report["variants"])}
<p>{escape(_split(report["split"]))}</p>
<small>Answers of another variant than the ledger assigned: {report["integrity"]["assignment_mismatches"]:,}.</small>
<h2>Plots</h2><div class="plots">{_effect(report["paired"]["brier_difference"])}{_curves(report["variants"])}</div>
</body></html>
"""


def _ranges(epochs: Sequence[int]) -> str:
    """Return numbers in a row as `3–7`."""
    parts = np.split(np.array(epochs), np.flatnonzero(np.diff(epochs) != 1) + 1)
    return ", ".join(str(part[0]) if len(part) == 1 else f"{part[0]}–{part[-1]}" for part in parts)  # noqa: RUF001


def _cell(value: Any) -> str:
    if value is None:
        return "–"  # noqa: RUF001
    return (
        f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else escape(str(value))
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(heading)}</th>" for heading in headings)
    body = "".join(f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


_SCORES = {
    "brier": "Brier",
    "log_loss": "log loss",
    "average_precision": "average precision",
    "calibration_error": "calibration error",
    "signals": "signals",
    "hit_rate": "hit rate",
}


def _paired_scores(variants: dict[str, Any]) -> str:
    rows = [[name, *(found[score] for score in _SCORES)] for name, found in variants.items()]
    return _table(("", *_SCORES.values()), rows)


def _answered(variants: dict[str, Any]) -> str:
    headings = ("", "version", "answered", "abstained", "p50 ms", "p95 ms", "outcomes known", "missing", "Brier")
    rows = []
    for name, found in variants.items():
        latency, outcomes = found["latency_ms"], found["outcomes"]
        abstained = ", ".join(f"{n:,} {reason}" for reason, n in found["abstained"].items()) or "none"
        counted = [found["answered"], abstained, latency["p50"], latency["p95"]]
        rows.append(
            [name, found["version"], *counted, outcomes["known"], outcomes["missing"], found["scores"]["brier"]]
        )
    return _table(headings, rows)


def _split(compared: dict[str, Any] | None) -> str:
    if compared is None:
        return "The symbols that each answered are too few to compare."
    symbols = " and ".join(map(str, compared["symbols"].values()))
    return (
        f"Weak, since the symbols differ ({symbols}): over {compared['bars']:,}"
        f" bars the Brier score of what the candidate answered differs by {compared['difference']:+.5f}"
        f" ({compared['low']:+.5f} to {compared['high']:+.5f}, {LEVEL:.0%}, clustered by symbol and bar)."
    )


def _svg(figure: Figure) -> str:
    text = StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None})
    return text.getvalue().partition("?>")[2].partition('.dtd">')[2]


def _axes(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.4))
    axes = figure.subplots()
    axes.set(title=title, xlabel=x, ylabel=y)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _effect(seen: dict[str, Any]) -> str:
    figure, axes = _axes("Is the candidate nearer?", "bars that count", "Brier, candidate less production")
    axes.axhline(0, color="#57606a", linewidth=0.8)
    if seen["bars"]:
        axes.fill_between(seen["bars"], seen["low"], seen["high"], alpha=0.2, color=_COLOURS["candidate"], linewidth=0)
        axes.plot(seen["bars"], seen["mean"], color=_COLOURS["candidate"])
    return _svg(figure)


def _curves(variants: dict[str, Any]) -> str:
    calibration, reliability = _axes("Calibration", "predicted", "happened")
    reliability.plot([0, 1], [0, 1], color="#57606a", linewidth=0.8, linestyle=":")
    distribution, shares = _axes("What was predicted", "probability", "share of answers")
    for name, found in variants.items():
        curve = found["calibration"]
        reliability.plot(
            [one["predicted"] for one in curve], [one["happened"] for one in curve], "o-", ms=3,
            color=_COLOURS[name], label=name,
        )  # fmt: skip
        counts = np.array(found["distribution"])
        shares.stairs(counts / max(counts.sum(), 1), np.linspace(0, 1, BINS + 1), color=_COLOURS[name], label=name)
    reliability.legend(frameon=False)
    shares.legend(frameon=False)
    return _svg(calibration) + _svg(distribution)
