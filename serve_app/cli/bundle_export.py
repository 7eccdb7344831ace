"""The commands `bundle export` and `bundle runtimes`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from serve_app.cli.common import DATA_HELP, FOLDER, MODELS_DIR, bars_of, new_version

if TYPE_CHECKING:
    from serve_app.model.gate import GateReport

RUNTIMES = ("torch", "torchscript", "onnx")
PRECISIONS = ("fp32", "bf16", "fp16")
BATCHES = (1, 8, 64, 256)


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--runtime", required=True, type=click.Choice(RUNTIMES))
@click.option("--precision", default="fp32", show_default=True, type=click.Choice(PRECISIONS))
@click.option("--version", required=True, help="Version of the new bundle, such as v1.2; one folder each.")
@MODELS_DIR
@click.option("--data", default="bokeh", show_default=True, help=f"The replay set of the gate. {DATA_HELP}")
def export(path: Path, runtime: str, precision: str, version: str, models_dir: Path, data: str) -> None:
    """Make a bundle that is served in another runtime or precision, if it decides alike."""
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.training.export import ExportSettings, export_bundle, replay_of  # noqa: PLC0415
    from serve_app.types import Precision, Runtime  # noqa: PLC0415

    folder = new_version(models_dir, version)
    source = load_bundle(path)
    settings = ExportSettings(version, Runtime(runtime), Precision(precision), datetime.now(UTC))
    replay = replay_of(source, bars_of(data) if source.config.bars_needed else {}, data)
    bundle = export_bundle(source, settings, replay, folder)
    click.echo(f"{folder}: {bundle.digest}")
    click.echo(_passed(bundle.gates[-1]))


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of one forward pass.")
def runtimes(path: Path, threads: int) -> None:
    """Show what each runtime of a bundle has passed, and how many rows a second it computes on this machine."""
    from serve_app.config import ModelConfig  # noqa: PLC0415
    from serve_app.doctor.speed import rows_per_s  # noqa: PLC0415
    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.model.predictors import admitted  # noqa: PLC0415
    from serve_app.model.stage import Model  # noqa: PLC0415

    bundle = load_bundle(path)
    for report in bundle.gates:
        click.echo(_passed(report))
    click.echo("rows/s, batch of".ljust(24) + "".join(f"{size:>10}" for size in BATCHES))
    for runtime, precision in admitted(bundle):
        config = ModelConfig(threads=threads, runtime=runtime, precision=precision)
        model = Model(bundle, config)
        rates = [rows_per_s(bundle, model, size) for size in BATCHES]
        served = " *" if (runtime, precision) == (bundle.config.runtime, bundle.config.precision) else ""
        click.echo(f"{runtime} {precision}{served}".ljust(24) + "".join(f"{rate:>10,.0f}" for rate in rates))
    click.echo("* serves, unless a configuration names another one")


def _passed(report: "GateReport") -> str:
    return (
        f"{report.runtime} {report.precision} on {report.device} decides like {report.reference[:40]}…:"
        f" {report.windows} windows ({report.golden_cases} golden, the rest {report.replay}), largest difference of a"
        f" probability {report.max_probability_error:.1e} of {report.probability_bound:g} allowed,"
        f" {report.flips_within_margin} actions changed within {report.margin:g} of a threshold, none outside"
    )
