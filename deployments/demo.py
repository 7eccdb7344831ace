"""`signalgraph demo`: the A/B graph on this machine, asked about real bars over HTTP as a trading client would."""

import json
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from deployments import process_commands
from deployments.runs import Run
from deployments.supervise import Options
from serve_app.client import RequestRefused, SignalClient, signal_body
from serve_app.model import load_bundle
from serve_app.training.data import BUILT_IN, load_bars
from serve_app.types import Action, Bars, PositionStatus

CONFIG = Path("configs/ab_test.yaml")
FOLDER = Path(".demo")
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
UNKNOWN = "FB"
"""Its first bar is after the training period: no model ever saw it."""
LATEST = 75
"""Bars of each symbol that are replayed."""


@dataclass(slots=True)
class _Holding:
    """What the client holds of one symbol, moved by the actions that it is told."""

    bars: int | None = None

    @property
    def position(self) -> dict[str, Any]:
        if self.bars is None:
            return {"status": PositionStatus.FLAT}
        return {"status": PositionStatus.LONG, "time_in_position_bars": self.bars}

    def follow(self, action: str) -> None:
        if action == Action.SELL:
            self.bars = None
        elif action == Action.BUY:
            self.bars = 1  # filled at the next open, so held for one bar when that one closes
        elif self.bars is not None:
            self.bars += 1


@dataclass(frozen=True, slots=True)
class _Answer:
    decision: Mapping[str, Any]
    latency_ms: float

    @property
    def line(self) -> str:
        d = self.decision
        probability = "-" if d["prediction_probability"] is None else f"{d['prediction_probability']:.4f}"
        return (
            f"{d['timestamp'][:10]}  {d['symbol']:<6}  {d['variant']:<10}  {d['model_version']:<7}  "
            f"{probability:>11}  {d['recommended_action']:<6}  {self.latency_ms:>7.1f} ms"
        )


HEADER = "time        symbol  variant     version  probability  action     latency"


def _bodies(bars: Mapping[str, Bars], needed: int, holdings: Mapping[str, _Holding]) -> Iterator[dict[str, Any]]:
    """One request for each of the latest bars of each symbol, all symbols of one bar together."""
    for ago in reversed(range(LATEST)):
        for symbol in SYMBOLS:
            known = bars[symbol].until(len(bars[symbol]) - ago)
            yield signal_body(symbol, known.tail(needed), holdings[symbol].position)


def _replay(client: SignalClient, bars: Mapping[str, Bars], needed: int) -> list[_Answer]:
    holdings: dict[str, _Holding] = defaultdict(_Holding)
    answers = []
    click.echo(HEADER)
    for body in _bodies(bars, needed, holdings):
        started = time.perf_counter()
        decision = client.signal(body)
        answers.append(_Answer(decision, 1e3 * (time.perf_counter() - started)))
        holdings[body["symbol"]].follow(decision["recommended_action"])
        click.echo(answers[-1].line)
    return answers


def _show_refusal(client: SignalClient, bars: Bars, needed: int) -> bool:
    """Ask about the symbol that no model saw; whether it was refused."""
    try:
        client.signal(signal_body(UNKNOWN, bars.tail(needed)))
    except RequestRefused as refused:
        click.echo(f"\n{UNKNOWN} is refused, as it must be: {refused}")
        return refused.code == "unknown_symbol"
    return False


def _summary(answers: list[_Answer]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in ("variant", "version", "decisions", "BUY", "SELL", "HOLD", "abstained", "p50 ms", "p95 ms"):
        table.add_column(name, no_wrap=True)
    by_variant: dict[tuple[str, str], list[_Answer]] = defaultdict(list)
    for answer in answers:
        by_variant[answer.decision["variant"], answer.decision["model_version"]].append(answer)
    for (variant, version), group in sorted(by_variant.items(), reverse=True):
        actions = [a.decision["recommended_action"] for a in group if a.decision["status"] == "ok"]
        counts = [str(actions.count(action)) for action in ("BUY", "SELL", "HOLD")]
        p50, p95 = np.percentile([a.latency_ms for a in group], [50, 95])
        table.add_row(
            variant, version, str(len(group)), *counts, str(len(group) - len(actions)), f"{p50:.1f}", f"{p95:.1f}"
        )
    return table


def _write_bodies(bars: Mapping[str, Bars], needed: int) -> None:
    """Leave a body a symbol behind, for curl."""
    FOLDER.mkdir(exist_ok=True)
    for symbol in SYMBOLS:
        (FOLDER / f"{symbol}.json").write_text(json.dumps(signal_body(symbol, bars[symbol].tail(needed))))


def _show(run: Run) -> bool:
    """Replay the latest bars and say what came of it; whether all of it was as it must be."""
    bars = load_bars(BUILT_IN)
    needed = load_bundle("models/production").config.bars_needed
    _write_bodies(bars, needed)
    with SignalClient(run.url) as client:
        answers = _replay(client, bars, needed)
        refused = _show_refusal(client, bars[UNKNOWN], needed)
    click.echo()
    Console().print(_summary(answers))
    errors = sum(answer.decision["status"] != "ok" for answer in answers)
    click.echo(f"{len(answers)} decisions over HTTP, {errors} abstentions\n")
    click.echo(f"ask yourself:  curl {run.url}/v1/signals -d @{FOLDER}/MSFT.json")
    click.echo(f"look at it:    {run.url}/dashboard")
    click.echo(f"documentation: {run.url}/docs        counts: {run.url}/v1/monitor        alerts: {run.url}/v1/alerts")
    return refused and not errors


@click.command()
@click.option("--exit", "leave", is_flag=True, help="Stop afterwards instead of serving on.")
@click.option("--port", type=click.IntRange(1, 65_535), help="HTTP port instead of the config's.")
def demo(leave: bool, port: int | None) -> None:
    """Run the A/B graph and replay the latest 75 daily bars of four symbols through it."""
    passed = False

    def then(run: Run) -> bool:
        nonlocal passed
        passed = _show(run)
        return passed and not leave

    process_commands.run(CONFIG, Options(port, then=then))
    sys.exit(0 if passed else 1)
