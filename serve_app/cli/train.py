"""The command `train`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from serve_app.cli.common import DATA_HELP, MODELS_DIR, bars_of, git_commit, new_version

if TYPE_CHECKING:
    from serve_app.training.build import Provenance


def _provenance(version: str, data: str) -> "Provenance":
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.training.build import Provenance  # noqa: PLC0415
    from serve_app.training.data import known_biases  # noqa: PLC0415

    return Provenance(version, datetime.now(UTC), git_commit(Path.cwd()), data, known_biases(data))


@click.command()
@click.option("--version", required=True, help="Version of the new bundle, such as v1.2; one folder each.")
@click.option("--preset", default=None, help="Settings to start from, v1.0 or v1.1 [default: --version, else v1.0].")
@click.option("--data", default="bokeh", show_default=True, help=DATA_HELP)
@MODELS_DIR
@click.option("--profit-target", type=click.FloatRange(0, min_open=True), help="Fraction of the entry price.")
@click.option("--stop-loss", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="Likewise.")
@click.option("--horizon", "horizon_bars", type=click.IntRange(1), help="Bars within which either must be reached.")
@click.option("--epochs", type=click.IntRange(1), help="At most; training stops early.")
@click.option("--seed", type=int, help="Same seed, data and machine: the same weights.")
def train(
    version: str,
    preset: str | None,
    data: str,
    models_dir: Path,
    epochs: int | None,
    seed: int | None,
    **label: float | None,
) -> None:
    """Train a model and write it as a bundle."""
    from rich.console import Console  # noqa: PLC0415

    from serve_app.training.build import build_bundle  # noqa: PLC0415
    from serve_app.training.presets import PRESETS, adjusted  # noqa: PLC0415
    from serve_app.training.progress import progress_bar  # noqa: PLC0415
    from serve_app.training.train import train as train_model  # noqa: PLC0415

    folder = new_version(models_dir, version)
    settings = adjusted(preset or (version if version in PRESETS else "v1.0"), label, {"epochs": epochs, "seed": seed})
    console = Console(stderr=True)
    bars = bars_of(data)
    with progress_bar(f"training {settings.architecture}", console) as progress:
        trained = train_model(settings, bars, progress)
    bundle = build_bundle(trained, bars, _provenance(version, data), folder)
    for symbol, reason in trained.left_out.items():
        console.print(f"left out {symbol}: {reason}")
    click.echo(f"{folder}: {bundle.digest}")
    click.echo(json.dumps(bundle.metadata["performance_metrics"], indent=2))
