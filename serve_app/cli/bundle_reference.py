"""The command `bundle reference`."""

from datetime import datetime
from pathlib import Path

import click

from serve_app.cli.common import DATA_HELP, FOLDER, MODELS_DIR, bars_of, new_version


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--version", required=True, help="Version of the new bundle, such as v1.2; one folder each.")
@click.option("--data", default="bokeh", show_default=True, help=f"What it was trained on. {DATA_HELP}")
@click.option("--until", required=True, type=click.DateTime(), help="The end of its training period, UTC.")
@MODELS_DIR
def reference(path: Path, version: str, data: str, until: datetime, models_dir: Path) -> None:
    """Make a bundle that knows what its model saw in training, from one that was trained elsewhere."""
    import numpy as np  # noqa: PLC0415

    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.training.reference import with_reference  # noqa: PLC0415

    folder = new_version(models_dir, version)
    bundle = with_reference(load_bundle(path), bars_of(data), np.datetime64(until, "us"), folder, version)
    assert bundle.reference is not None  # noqa: S101  with_reference gave it one
    click.echo(f"{folder}: {bundle.digest}")
    click.echo(f"knows what the model saw of {', '.join(bundle.reference.symbols)} until {until.isoformat()}Z")
