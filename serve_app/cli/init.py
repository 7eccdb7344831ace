"""The command `init`."""

from pathlib import Path

import click


@click.command()
@click.argument("name")
def init(name: str) -> None:
    """Make the folder NAME, with a model of your own that trains and serves as it stands."""
    from serve_app.scaffold import create  # noqa: PLC0415

    for path in create(Path(), name):
        click.echo(path)
    click.echo(f"next: cd {name} && python train.py && signalgraph up serve.yaml; {name}/README.md says what is what")
