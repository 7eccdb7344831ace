"""`python -m benchmarks`: our peers, ourselves and the ceilings on the same work, in turns, in one run."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from subprocess import CalledProcessError

import click

from benchmarks.batch import batches, forward
from benchmarks.closed_loop import MissingTool
from benchmarks.machine import machine, now
from benchmarks.peers.systems import HAND_MADE, PEERS
from benchmarks.peers.venvs import CannotInstall
from benchmarks.picture import draw
from benchmarks.process import DidNotStart, free_port
from benchmarks.record import FULL, Record, per_s
from benchmarks.report import MODEL, markdown
from benchmarks.systems import CEILINGS, FUSED, OURS, System, WrongAnswer
from benchmarks.visit import closed, ladder, monitored, overload, raw_bars
from deployments.signals import StopSignal, stop_signals
from serve_app.cli.common import git_commit

OUT = Path("benchmarks/results/bench")
SYSTEMS = {system.name: system for system in (*PEERS, *HAND_MADE, *OURS, *CEILINGS)}
_FAILURES = (DidNotStart, WrongAnswer, CannotInstall, CalledProcessError, OSError)


def visit(run: Record, number: int, system: System, seconds: float) -> None:
    """Start a system, measure all that is measured of it, and end it. Raises what goes wrong with it."""
    with system.running(free_port()) as load:
        if system in OURS:
            run.batches[system.name] = monitored(load, seconds)
        measured = closed(load, seconds)
        capacity = measured[per_s(FULL)]
        measured |= ladder(load, capacity)
        if system is FUSED:
            measured |= raw_bars(load, seconds) | batches(load, seconds) | overload(load, capacity)
    run.add(number, system.name, measured)
    click.echo(f"round {number}: {system.name:16} {capacity:7,.0f} requests/s at {FULL}")


def measure(run: Record, systems: Sequence[System], seconds: float, out: Path) -> None:
    """Take turns for all rounds; write after each, so that nothing is lost."""
    for number in range(1, run.rounds + 1):
        run.add(number, MODEL, forward())
        for system in systems:
            try:
                visit(run, number, system, seconds)
            except _FAILURES as error:
                run.faults.append(f"round {number}, {system.title}: {error}")
                click.echo(f"NOT MEASURED: {run.faults[-1]}")
        write(run, out)


def write(run: Record, out: Path) -> None:
    """Write numbers, tables and pictures."""
    out.with_suffix(".json").write_text(json.dumps(run.document(), indent=1))
    out.with_suffix(".md").write_text(markdown(run))
    draw(run, out.with_suffix(".png"))


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@click.option("--seconds", type=click.IntRange(min=1), default=3, show_default=True, help="Of each closed loop.")
@click.option("--only", type=click.Choice(list(SYSTEMS)), multiple=True, help="A system; can be given again.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Without a suffix.")
def main(rounds: int, seconds: float, only: Sequence[str], out: Path) -> None:
    """Measure, and write what came of it; exit with 1 when a system could not be measured."""
    systems = [system for name, system in SYSTEMS.items() if not only or name in only]
    titles = {MODEL: MODEL, **{system.name: system.title for system in systems}}
    run = Record(machine(), now(), git_commit(Path.cwd()), rounds, titles)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with stop_signals():
            measure(run, systems, seconds, out)
    except MissingTool as error:
        raise click.ClickException(str(error)) from error
    except StopSignal as stop:
        raise click.ClickException(f"{stop}: {out}.* has the rounds that were complete") from stop
    click.echo(markdown(run))
    sys.exit(1 if run.faults else 0)


if __name__ == "__main__":
    main()
