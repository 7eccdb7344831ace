"""The command `train`."""

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import (
    DATA_HELP,
    EXPERIMENT,
    MODELS_DIR,
    TRACKING_URI,
    bars_of,
    git_commit,
    new_version,
)

if TYPE_CHECKING:
    from serve_app.model import Bundle
    from serve_app.model.mlflow_registry import TrackedRun
    from serve_app.training.build import Provenance
    from serve_app.training.train import TrainedModel, TrainSettings
    from serve_app.types import Bars


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
@click.option("--mlflow/--no-mlflow", "track", default=True, show_default=True, help="Log the run to MLflow.")
@TRACKING_URI
@EXPERIMENT
def train(
    version: str, data: str, models_dir: Path, track: bool, tracking_uri: str | None, experiment: str, **changes: Any
) -> None:
    """Train a model and write it as a bundle."""
    folder = new_version(models_dir, version)
    settings = _settings(version, **changes)
    bars = bars_of(data)
    with _terminated_as_interrupted(), _tracked(track, version, tracking_uri, experiment) as run:
        provenance = _provenance(version, data, None if run is None else run.run_id)
        if run is not None:
            run.params(_params(settings, bars, provenance))
        trained, bundle = _train(settings, bars, provenance, folder)
        # It is there, whatever MLflow says next.
        click.echo(f"{folder}: {bundle.digest}")
        click.echo(json.dumps(bundle.metadata["performance_metrics"], indent=2))
        if run is not None:
            _log(run, trained, bundle)
    if run is not None:
        click.echo(f"MLflow run {run.run_id} in {run.uri}", err=True)


def _settings(
    version: str, preset: str | None, epochs: int | None, seed: int | None, **label: float | None
) -> "TrainSettings":
    from serve_app.training.presets import PRESETS, adjusted  # noqa: PLC0415

    return adjusted(preset or (version if version in PRESETS else "v1.0"), label, {"epochs": epochs, "seed": seed})


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM unwind as Ctrl-C does, so that the run ends as KILLED and is not left as running."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _tracked(
    track: bool, version: str, tracking_uri: str | None, experiment: str
) -> AbstractContextManager["TrackedRun | None"]:
    if not track:
        return nullcontext()
    from serve_app.model.mlflow_registry import tracked_run  # noqa: PLC0415

    return tracked_run(f"train {version}", tracking_uri, experiment)


def _provenance(version: str, data: str, run_id: str | None) -> "Provenance":
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.training.build import Provenance  # noqa: PLC0415
    from serve_app.training.data import known_biases  # noqa: PLC0415

    return Provenance(version, datetime.now(UTC), git_commit(Path.cwd()), data, known_biases(data), run_id)


def _train(
    settings: "TrainSettings", bars: Mapping[str, "Bars"], provenance: "Provenance", folder: Path
) -> tuple["TrainedModel", "Bundle"]:
    from rich.console import Console  # noqa: PLC0415

    from serve_app.training.build import build_bundle  # noqa: PLC0415
    from serve_app.training.progress import progress_bar  # noqa: PLC0415
    from serve_app.training.train import train as train_model  # noqa: PLC0415

    console = Console(stderr=True)
    with progress_bar(f"training {settings.architecture}", console) as progress:
        trained = train_model(settings, bars, progress)
    for symbol, reason in trained.left_out.items():
        console.print(f"left out {symbol}: {reason}")
    return trained, build_bundle(trained, bars, provenance, folder)


def _params(settings: "TrainSettings", bars: Mapping[str, "Bars"], provenance: "Provenance") -> dict[str, Any]:
    from serve_app.training.build import data_version  # noqa: PLC0415

    return {
        **asdict(settings),
        "label": asdict(settings.label),
        "model_version": provenance.version,
        "git_commit": provenance.git_commit,
        "data": provenance.data_source,
        "data_version": data_version(bars),
    }


def _log(run: "TrackedRun", trained: "TrainedModel", bundle: "Bundle") -> None:
    for epoch in trained.report.history:
        run.metrics({"train_loss": epoch.train_loss, "validation_loss": epoch.validation_loss}, step=epoch.epoch)
    run.metrics({**trained.metrics, "threshold": trained.threshold, "best_epoch": trained.report.best_epoch})
    run.bundle(bundle.path, bundle.digest)
