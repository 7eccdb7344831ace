"""The commands `up`, `down` and `status`."""

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deployments import processes, runs, serve_status, supervise
from deployments.profile import Machine, exports
from deployments.runs import Run
from deployments.supervise import Options

NOT_READY = 3
"""Exit code of `status` unless every graph it shows is ready."""


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be gone (SIGHUP); the clean-up must go on
        click.echo(line)


def _state_dir() -> Path:
    return runs.state_dir(os.environ, Path.home())


@click.command()
@click.argument("config", type=click.Path(path_type=Path), default="configs/local.yaml")
@click.option("--port", type=click.IntRange(1, 65_535), help="HTTP port instead of the config's.")
@click.option("--plain", is_flag=True, help="Ray's own proxy instead of the high-throughput profile.")
@click.option("--timeout", "timeout_s", default=300.0, show_default=True, help="Seconds to become ready.")
def up(config: Path, port: int | None, plain: bool, timeout_s: float) -> None:
    """Run the graph of CONFIG until Ctrl-C.

    Starts the same file as `serve run`, with Ray's high-throughput flags, and says when every variant has reproduced
    its golden cases. Exits with 0 after a stop, with 1 and the reason if the graph cannot start.
    """
    run(config, Options(port, plain, timeout_s))


def run(config: Path, options: Options) -> None:
    """Run a graph as `up` does."""
    supervise.up(config, _state_dir(), _say, options)


@click.command()
@click.option("--port", type=int, help="HTTP port of the graph to stop; needed when several run.")
def down(port: int | None) -> None:
    """Stop a running graph and all its processes.

    Also ends what a killed `up` left behind. Exits with 0 when nothing runs: that is what was asked for.
    """
    folder = _state_dir()
    found = runs.known(folder, port)
    if not found:
        _say("nothing runs" if port is None else f"nothing runs on port {port}")
        return
    if len(found) > 1:
        raise click.UsageError(f"several graphs run; pass --port with one of {_ports(found)}")
    supervise.down(found[0], folder, _say)


@click.command()
@click.option("--port", type=int, help="HTTP port of one graph; default all.")
def status(port: int | None) -> None:
    """Show the running graphs: ready or why not, deployments, replicas, memory.

    Exits with 0 if all of them are ready, else with 3.
    """
    found = runs.known(_state_dir(), port)
    if not found:
        _say("nothing runs")
        sys.exit(NOT_READY)
    console = Console()
    reasons = [_reason(run, serve_status.unready(run.url)) for run in found]
    for run, reason in zip(found, reasons, strict=True):
        console.print(_summary(run, reason))
        console.print(_deployments(run))
    sys.exit(NOT_READY if any(reasons) else 0)


def _reason(run: Run, unready: str | None) -> str | None:
    if not run.watched:
        return f"signalgraph up (pid {run.pid}) was killed; clean up with `signalgraph down --port {run.ports.http}`"
    return unready


def _summary(run: Run, reason: str | None) -> Table:
    count, size = processes.memory(run.run_id)
    table = Table(show_header=False, box=None)
    table.add_row("address", run.url)
    table.add_row("dashboard", f"{run.url}/dashboard")
    table.add_row("config", run.config)
    table.add_row("up since", f"{run.since} (pid {run.pid}, log {run.log})")
    table.add_row("for Prometheus", str(run.discovery))
    table.add_row("ready", Text(f"no: {reason}", "red") if reason else Text("yes", "green"))
    table.add_row("processes", f"{count}, {size / 2**20:,.0f} MiB resident (shared pages counted in each)")
    return table


def _deployments(run: Run) -> Table:
    table = Table("application", "deployment", "status", "replicas", "message")
    token = serve_status.token(os.environ, Path.home())
    for application in serve_status.applications(run.dashboard, token) if run.dashboard else ():
        table.add_row(application.name, "", application.status, "", application.trouble or "")
        for one in application.deployments:
            table.add_row("", one.name, one.status, f"{one.running}/{one.target}", "")
    return table


def _ports(found: Sequence[Run]) -> str:
    return ", ".join(str(run.ports.http) for run in found)


@click.command()
def profile() -> None:
    """Print the high-throughput profile as shell commands: `eval "$(signalgraph profile)"` before `ray start`."""
    click.echo(exports(Machine()))
