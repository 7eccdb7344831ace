"""The command `config check`."""

import sys
from pathlib import Path

import click


@click.group()
def config() -> None:
    """Look after configuration files."""


@config.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def check(paths: tuple[Path, ...]) -> None:
    """Name every unknown key and contradiction in configuration files; exit with 1 if there are any."""
    from deployments.config_check import faults_of_file  # noqa: PLC0415  imports Ray's schemas

    faulty = False
    for path in paths:
        faults = faults_of_file(path)
        faulty |= bool(faults)
        click.echo("\n".join(f"{path}: {fault}" for fault in faults) or f"{path}: fine")
    sys.exit(1 if faulty else 0)
