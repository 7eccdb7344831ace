"""The command `bundle publish`."""

from pathlib import Path

import click

from serve_app.cli.common import EXPERIMENT, FOLDER, TRACKING_URI


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--name", default="TradingSignalPredictor", show_default=True, help="Of the registered model.")
@click.option("--alias", default="production", show_default=True, help="Moved to this version.")
@TRACKING_URI
@EXPERIMENT
def publish(path: Path, name: str, alias: str, tracking_uri: str | None, experiment: str) -> None:
    """Register a bundle in MLflow, with its files as artefacts, and move an alias to it."""
    from serve_app.model.mlflow_registry import publish_bundle  # noqa: PLC0415

    published = publish_bundle(path, name, alias, tracking_uri, experiment)
    how = "registered" if published.is_new else "was registered already"
    click.echo(f"{path}: {published.digest}")
    click.echo(f"{how} as version {published.version} of {name}, run {published.run_id}")
    click.echo(f"models:/{name}@{alias} is this version now")
