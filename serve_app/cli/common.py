"""What commands share: options, and the bundle and the bars that they are about."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from serve_app.pipeline import Pipeline
    from serve_app.types import Bars

PRODUCTION = Path("models/production")
DATA_HELP = (
    "CSV or Parquet with timestamp, symbol, open, high, low, close, volume; or `bokeh`, the built-in daily bars."
)
FOLDER = click.Path(path_type=Path)
MODELS_DIR = click.option("--models-dir", type=FOLDER, default=Path("models"), show_default=True)
BUNDLE = click.option("--bundle", "path", type=FOLDER, default=PRODUCTION, show_default=True)
TRACKING_URI = click.option(
    "--tracking-uri", default=None, help="Of MLflow [default: $MLFLOW_TRACKING_URI, else sqlite:///mlflow.db]."
)
EXPERIMENT = click.option("--experiment", default="signalgraph", show_default=True, help="Of MLflow.")
WHO = click.option("--who", default=None, help="Who decided it [default: the login name].")
WHY = click.option("--why", required=True, help="The reason, one line; it stays in the history.")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")


def git(folder: Path, *arguments: str) -> str | None:
    """Return what git says of the repository around a folder; None when it fails, or is not there."""
    import subprocess  # noqa: PLC0415

    try:
        said = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)  # noqa: S603, S607
    except OSError:
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def git_commit(folder: Path) -> str | None:
    """Return the commit checked out at `folder`, with `-dirty` when files differ from it; None without git."""
    return git(folder, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or None


def new_version(models_dir: Path, version: str) -> Path:
    """Return the folder of a version that is about to be made. Raises click's error when it is there."""
    folder = models_dir / version
    if folder.exists():
        raise click.ClickException(f"{folder} is there already, and a bundle never changes; choose another --version")
    return folder


def pipeline_of(path: Path) -> "Pipeline":
    """Load a bundle with all its stages in this process."""
    from serve_app.config import ModelConfig  # noqa: PLC0415
    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.pipeline import Pipeline, local_stages  # noqa: PLC0415

    bundle = load_bundle(path)
    return Pipeline(bundle, local_stages(bundle, ModelConfig()))


def bars_of(data: str) -> "Mapping[str, Bars]":
    """Read bars; what pandas and pyarrow say of a broken file becomes a message."""
    from serve_app.training.data import load_bars  # noqa: PLC0415

    try:
        return load_bars(data)
    except (ValueError, OSError) as error:
        raise click.ClickException(f"{data} cannot be read: {error}") from error


def conclude(ok: bool) -> None:
    """Exit with 1 unless all is well."""
    if not ok:
        click.get_current_context().exit(1)


def login() -> str:
    """Return who is logged in. Raises click's error where the system has no name for you."""
    import getpass  # noqa: PLC0415

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise click.UsageError("this system has no login name for you; say it with --who") from error


def short(value: Any) -> str:
    """Return a cell: digests and commits to twelve digits, times to the second."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = "-" if value is None else str(value)
    text = re.sub(r"^(?:sha256:)?([0-9a-f]{12})[0-9a-f]{28,}", r"\1", text)
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\S*$", r"\1 \2", text)


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, in columns as wide as they need to be."""
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
