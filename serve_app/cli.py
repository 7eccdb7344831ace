"""The commands that need no Ray. Heavy imports happen inside commands, so that help answers at once."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from serve_app.pipeline import Pipeline
    from serve_app.training.build import Provenance

PRODUCTION = Path("models/production")
DATA_HELP = (
    "CSV or Parquet with timestamp, symbol, open, high, low, close, volume; or `bokeh`, the built-in daily bars."
)


def git_commit(folder: Path) -> str | None:
    """Return the commit checked out at `folder`, with `-dirty` when files differ from it; None outside git."""
    import subprocess  # noqa: PLC0415

    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    return found.stdout.strip() or None


def _provenance(version: str, data: str) -> "Provenance":
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.training.build import Provenance  # noqa: PLC0415
    from serve_app.training.data import known_biases  # noqa: PLC0415

    return Provenance(version, datetime.now(UTC), git_commit(Path.cwd()), data, known_biases(data))


@click.command()
@click.option("--version", required=True, help="Version of the new bundle, such as v1.2; one folder each.")
@click.option("--preset", default=None, help="Settings to start from, v1.0 or v1.1 [default: --version, else v1.0].")
@click.option("--data", default="bokeh", show_default=True, help=DATA_HELP)
@click.option("--models-dir", type=click.Path(path_type=Path), default=Path("models"), show_default=True)
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
    from serve_app.training.data import load_bars  # noqa: PLC0415
    from serve_app.training.presets import PRESETS, adjusted  # noqa: PLC0415
    from serve_app.training.progress import progress_bar  # noqa: PLC0415
    from serve_app.training.train import train as train_model  # noqa: PLC0415

    folder = models_dir / version
    if folder.exists():
        raise click.ClickException(f"{folder} is there already, and a bundle never changes; choose another --version")
    settings = adjusted(preset or (version if version in PRESETS else "v1.0"), label, {"epochs": epochs, "seed": seed})
    console = Console(stderr=True)
    bars = load_bars(data)
    with progress_bar(f"training {settings.architecture}", console) as progress:
        trained = train_model(settings, bars, progress)
    bundle = build_bundle(trained, bars, _provenance(version, data), folder)
    for symbol, reason in trained.left_out.items():
        console.print(f"left out {symbol}: {reason}")
    click.echo(f"{folder}: {bundle.digest}")
    click.echo(json.dumps(bundle.metadata["performance_metrics"], indent=2))


@click.group()
def bundle() -> None:
    """Look after bundles."""


@bundle.command()
@click.argument("path", type=click.Path(path_type=Path))
def verify(path: Path) -> None:
    """Check every file of a bundle against its manifest, and that its golden cases are reproduced here."""
    import asyncio  # noqa: PLC0415

    from serve_app.parity import check_golden  # noqa: PLC0415

    pipeline = _pipeline(path)
    asyncio.run(check_golden(pipeline))
    bundle, config = pipeline.bundle, pipeline.bundle.config
    click.echo(f"{path}: {bundle.version} {config.architecture}, {bundle.digest}")
    click.echo(f"every file is as built; {len(bundle.golden)} golden cases reproduced; needs {config.bars_needed} bars")


@click.command()
@click.option("--symbol", required=True)
@click.option("--data", required=True, help=DATA_HELP)
@click.option("--bundle", "path", type=click.Path(path_type=Path), default=PRODUCTION, show_default=True)
@click.option("--position", type=click.Choice(["FLAT", "LONG"]), default="FLAT", show_default=True)
@click.option("--held", type=click.FloatRange(0), help="How long, in the bundle's holding unit; needed when LONG.")
@click.option("--explain", is_flag=True, help="Show bars → features → probability against threshold → action.")
def signal(symbol: str, data: str, path: Path, position: str, held: float | None, explain: bool) -> None:
    """Decide on the latest bar of a symbol, in this process, with the code that serves."""
    import asyncio  # noqa: PLC0415

    from serve_app.explain import decide, explanation, request_of  # noqa: PLC0415
    from serve_app.training.data import load_bars  # noqa: PLC0415

    bars = load_bars(data)
    if symbol not in bars:
        raise click.ClickException(f"{data} has no {symbol}; it has {', '.join(sorted(bars))}")
    pipeline = _pipeline(path)
    steps = asyncio.run(decide(pipeline, request_of(pipeline.bundle, symbol, bars[symbol], position, held)))
    click.echo(explanation(pipeline, steps) if explain else f"{steps.action} {symbol} {steps.probability:.6f}")


def _pipeline(path: Path) -> "Pipeline":
    from serve_app.config import ModelConfig  # noqa: PLC0415
    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.pipeline import Pipeline, local_stages  # noqa: PLC0415

    bundle = load_bundle(path)
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))
