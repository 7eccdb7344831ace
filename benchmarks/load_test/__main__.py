"""`python -m benchmarks.load_test`: start a graph, ramp users up and down, and show how it grew and shrank."""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from benchmarks.load_test.load import LoadFailed, loading, make_bodies
from benchmarks.load_test.picture import draw
from benchmarks.load_test.ramp import Ramp
from benchmarks.load_test.record import Record
from benchmarks.load_test.replicas import Replicas, dashboard_of, watch
from benchmarks.machine import machine
from benchmarks.process import DidNotStart, free_port, ours, serving
from deployments import launch, serve_status
from deployments.signals import StopSignal, stop_signals
from serve_app.cli.common import git_commit
from serve_app.errors import ConfigError, ServeAppError

CONFIG = Path("configs/autoscale_demo.yaml")
OUT = Path("benchmarks/results/load_test")
_SECONDS = click.FloatRange(min=0)
_RAMP = Ramp()


def bundle_of(config: Path) -> Path:
    """Return the folder of the production bundle of a configuration. Raises ConfigError."""
    for application in launch.read(config)["applications"]:
        if variants := (application.get("args") or {}).get("variants"):
            return Path(variants["production"]["bundle"])
    raise ConfigError(f"{config} has no application with `args.variants`, so there is no bundle to ask about")


@contextmanager
def graph(config: Path, url: str | None) -> Iterator[str]:
    """Give the address of a graph: the one that runs, or one that is started and ends with the block."""
    if url:
        if reason := serve_status.unready(url):
            raise DidNotStart(f"{url} is not ready: {reason}")
        yield url
        return
    port = free_port()
    started = f"http://127.0.0.1:{port}"
    click.echo(f"starting {config} on {started}")
    with serving(ours(config, port), {"OMP_NUM_THREADS": "1"}, lambda: serve_status.unready(started) is None):
        yield started


def measure(url: str, dashboard: str, bodies: Sequence[bytes], ramp: Ramp) -> Record:
    """Send the load and watch the replicas. Raises LoadFailed."""
    began, replicas = time.time(), list[Replicas]()
    click.echo(f"{ramp.users} users, {ramp.duration:g} s")
    with loading(url, bodies, ramp) as load:
        for one in watch(dashboard, load.over):
            _tell(replicas, one, began)
            replicas.append(one)
        seconds = load.seconds()
    date = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return Record(ramp, url, machine(), date, git_commit(Path.cwd()), began, seconds, replicas)


def _tell(before: Sequence[Replicas], one: Replicas, began: float) -> None:
    last = before[-1].running if before else {}
    for name, n in one.running.items():
        if n != last.get(name):
            click.echo(f"{one.t - began:6.0f} s  {name}: {n} running, {one.target[name]} wanted")


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), default=CONFIG, show_default=True)
@click.option("--users", type=click.IntRange(min=1), default=_RAMP.users, show_default=True)
@click.option("--ramp-up", type=_SECONDS, default=_RAMP.ramp_up, show_default=True)
@click.option("--hold", type=_SECONDS, default=_RAMP.hold, show_default=True)
@click.option("--ramp-down", type=_SECONDS, default=_RAMP.ramp_down, show_default=True)
@click.option("--cool", type=_SECONDS, default=_RAMP.cool, show_default=True, help="Seconds with one user, at the end.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Without .json and .png.")
@click.option("--url", help="A graph that runs already; its bundle is still the one of --config.")
@click.option("--dashboard", help="Of Ray, for a --url that no `signalgraph up` on this machine serves.")
def main(config: Path, out: Path, url: str | None, dashboard: str | None, **ramp: Any) -> None:
    """Ramp users up and down, and write what came of it; exit with 1 when anything was not as it must be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with stop_signals():
            bodies = make_bodies(bundle_of(config))
            with graph(config, url and url.rstrip("/")) as address:
                record = measure(address, dashboard or dashboard_of(address), bodies, Ramp(**ramp))
    except (ServeAppError, DidNotStart, LoadFailed) as error:
        raise click.ClickException(str(error)) from error
    except StopSignal as stop:
        raise click.ClickException(f"{stop}: nothing is written") from stop
    sys.exit(0 if _conclude(replace(record, target=url or str(config)), out) else 1)


def _conclude(record: Record, out: Path) -> bool:
    """Write and print everything; whether all is well."""
    numbers, picture = (out.with_name(f"{out.name}.{kind}") for kind in ("json", "png"))
    numbers.write_text(json.dumps(record.document(), indent=1))
    draw(record, picture)
    for name, value in record.summary():
        click.echo(f"{name}: {value}")
    complaints = list(record.complaints())
    for complaint in complaints:
        click.echo(f"NOT AS IT MUST BE: {complaint}")
    click.echo(f"{picture} and {numbers}")
    return not complaints


if __name__ == "__main__":
    main()
