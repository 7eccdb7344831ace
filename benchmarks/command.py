"""What the benchmarks that write one file have in common: how they stop, and what they leave behind."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from benchmarks.closed_loop import MissingTool
from benchmarks.machine import machine, now
from benchmarks.process import DidNotStart
from benchmarks.systems import WrongAnswer
from deployments.signals import StopSignal, stop_signals
from serve_app.cli.common import git_commit


@contextmanager
def measuring() -> Iterator[None]:
    """Let a signal stop the block, and say in one line what kept it from its end."""
    try:
        with stop_signals():
            yield
    except (MissingTool, DidNotStart, WrongAnswer, StopSignal) as error:
        raise click.ClickException(str(error)) from error


def write(out: Path, **found: Any) -> None:
    """Write what was found, with the machine that it was found on, when, and of which commit."""
    stamped = {"machine": machine(), "date": now(), "commit": git_commit(Path.cwd())}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(stamped | found, indent=1) + "\n")
