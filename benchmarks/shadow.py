"""`python -m benchmarks.shadow`: what a shadow costs, in particular one that sleeps or raises in every call."""

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import yaml

from benchmarks.closed_loop import Load, Measured, closed_loop, in_turn
from benchmarks.command import measuring, write
from benchmarks.faulty import FAULT, FAULTS
from benchmarks.process import free_port
from benchmarks.record import FULL
from benchmarks.systems import CONFIGS, MODEL_REMOTE
from benchmarks.workload import reference
from deployments import ports, profile
from serve_app.api import CONTROL_KEY
from serve_app.client import SignalClient
from serve_app.model import write_bundle

OUT = Path("benchmarks/results/shadow.json")
KEY = "benchmark"
CANDIDATE = "v9.9"


def config_in(folder: Path, port: int) -> Path:
    """Write `model_remote` with a journal, and a candidate of the same network behind a fault."""
    bundle = reference()
    named = bundle.config.model_copy(update={"model_version": CANDIDATE})
    candidate = write_bundle(replace(bundle, path=folder / CANDIDATE, config=named))
    document: dict[str, Any] = yaml.safe_load((CONFIGS / "model_remote.yaml").read_text())
    document["http_options"]["port"] = port
    signals, production = document["applications"]
    signals["args"]["variants"]["candidate"] = {"bundle": str(candidate.path)}
    signals["args"]["journal"] = {"url": f"sqlite:///{folder / 'journal.db'}", "spool": str(folder / "spool")}
    document["applications"].append(
        {
            **production,
            "name": "model-candidate",
            "import_path": "benchmarks.faulty:build_model",
            "args": {"variant": "candidate", "bundle": str(candidate.path)},
        }
    )
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(document))
    return config


@contextmanager
def graph(fault: str) -> Iterator[tuple[Load, str]]:
    """Serve until the block ends; give the load, and the address. Raises DidNotStart, WrongAnswer."""
    with TemporaryDirectory(prefix="sg-") as folder:
        port = free_port()
        # `signalgraph up` would refuse a model that is not ours.
        command = [str(Path(sys.executable).parent / "serve"), "run", str(config_in(Path(folder), port))]
        own = {**os.environ, FAULT: fault, CONTROL_KEY: KEY, "PYTHONPATH": str(Path.cwd())}
        environment = profile.environment(own, ports.choose(port), Path(folder), secrets.token_hex(8), haproxy=True)
        environment = {name: value for name, value in environment.items() if os.environ.get(name) != value}
        system = replace(MODEL_REMOTE, command=command, environment=environment)
        with system.running(port) as load:
            yield load, f"http://127.0.0.1:{port}"


def compare(fault: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure with the shadow off and on, in turn; return medians, their ratio, and what was not answered well."""
    with graph(fault) as (load, url), SignalClient(url, KEY) as client:

        def measure(on: bool) -> Measured:
            client.change_release("shadow", {"shadow": on, "who": "benchmark", "why": "to compare"})
            return closed_loop(load, FULL, seconds)

        closed_loop(load, FULL, seconds)
        runs = in_turn(rounds, measure)
    off, on_ = (median(run.per_s for run in runs[on]) for on in (False, True))
    bad = sum(run.not_2xx + run.lost for run in (*runs[False], *runs[True]))
    return {"candidate": fault, "off_per_s": off, "on_per_s": on_, "ratio": on_ / off, "not_answered": bad}


@click.command()
@click.option("--rounds", type=click.IntRange(min=1), default=6, show_default=True)
@click.option("--seconds", type=click.IntRange(min=1), default=5, show_default=True, help="Of one measurement.")
@click.option("--out", type=click.Path(path_type=Path), default=OUT, show_default=True)
def main(rounds: int, seconds: float, out: Path) -> None:
    """Compare the throughput of `model_remote` with the shadow off and on, for each kind of candidate."""
    found = []
    with measuring():
        for fault in FAULTS:
            found.append(compare(fault, rounds, seconds))
            click.echo("a candidate that {candidate}: {ratio:.3f} of {off_per_s:,.0f}/s".format(**found[-1]))
    write(out, connections=FULL, candidates=found)


if __name__ == "__main__":
    main()
