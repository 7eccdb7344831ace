"""The commands that need no Ray. Heavy imports happen inside commands, so that help answers at once."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.import_commands import import_

if TYPE_CHECKING:
    from serve_app.model.repository import Repository, Version
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


bundle.add_command(import_)


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


MODELS_DIR = click.option("--models-dir", type=click.Path(path_type=Path), default=Path("models"), show_default=True)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="As JSON.")
WHO = click.option("--who", default=None, help="Who decided it [default: the login name].")
WHY = click.option("--why", required=True, help="The reason, one line; it stays in the history.")


@click.group()
def models() -> None:
    """Look after the model repository: what there is, what is in production, and what was."""


@models.command("list")
@MODELS_DIR
@AS_JSON
def list_models(models_dir: Path, as_json: bool) -> None:
    """Verify every version and show what it is."""
    repository = _repository(models_dir)
    production, tags = repository.production(), _git_tags(models_dir)
    facts = [_facts(version, production, tags) for version in repository.versions()]
    if as_json:
        click.echo(json.dumps({"production": production, "versions": facts}, indent=2, ensure_ascii=False))
        return
    headings = ("", "VERSION", "ARCHITECTURE", "DIGEST", "TRAINED", "TEST AP", "BASE RATE", "COMMIT", "TAG")
    _table(headings, [_line_of(fact) for fact in facts])
    for fact in facts:
        if not fact["verified"]:
            click.echo(f"{fact['version']} cannot be used: {fact['reason']}")
    _tell_if_interrupted(repository)


@models.command()
@MODELS_DIR
@AS_JSON
def history(models_dir: Path, as_json: bool) -> None:
    """Verify the chain of promotions and rollbacks and show it, oldest first."""
    repository = _repository(models_dir)
    entries = [entry.model_dump(mode="json") for entry in repository.history()]
    if as_json:
        click.echo(json.dumps(entries, indent=2, ensure_ascii=False))
        return
    if not entries:
        click.echo("nothing was promoted yet")
        return
    shown = ("at", "action", "version", "previous_version", "digest", "who", "why")
    headings = [name.upper().replace("_VERSION", "") for name in shown]
    _table(headings, [[_short(entry[name]) for name in shown] for entry in entries])
    _tell_if_interrupted(repository)


@models.command()
@click.argument("version")
@MODELS_DIR
@WHO
@WHY
def promote(version: str, models_dir: Path, who: str | None, why: str) -> None:
    """Verify VERSION and put it into production."""
    _move("promote", models_dir, who, why, version)


@models.command()
@MODELS_DIR
@WHO
@WHY
def rollback(models_dir: Path, who: str | None, why: str) -> None:
    """Put back into production what was there before."""
    _move("rollback", models_dir, who, why)


def _repository(models_dir: Path) -> "Repository":
    from serve_app.model.repository import Repository  # noqa: PLC0415

    return Repository(models_dir)


def _move(action: str, models_dir: Path, who: str | None, why: str, *version: str) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    move = getattr(_repository(models_dir), action)
    try:
        entry = move(*version, who=who or _login(), why=why, now=datetime.now(UTC))
    except OSError as error:
        raise click.ClickException(f"cannot {action}: {error}") from error
    click.echo(
        f"{models_dir / PRODUCTION.name}: {entry.previous_version or 'nothing'} → {entry.version}, {entry.digest}"
    )
    click.echo("a graph that is running keeps the bundle it was started on")


def _login() -> str:
    import getpass  # noqa: PLC0415

    try:
        return getpass.getuser()
    except (KeyError, OSError) as error:
        raise click.UsageError("this system has no login name for you; say it with --who") from error


def _facts(version: "Version", production: str | None, tags: set[str]) -> dict[str, Any]:
    metadata = version.metadata or {}
    metrics = metadata.get("performance_metrics")
    test = metrics.get("test") if isinstance(metrics, dict) else None
    tag = f"model-{version.name}"
    return {
        "version": version.name,
        "production": version.name == production,
        "verified": version.reason is None,
        "reason": version.reason,
        "digest": version.digest,
        "architecture": version.architecture,
        "trained_at": metadata.get("training_date"),
        "test": {
            name: test.get(name) if isinstance(test, dict) else None for name in ("average_precision", "base_rate")
        },
        "git_commit": metadata.get("git_commit"),
        "git_tag": tag if tag in tags else None,
    }


def _line_of(fact: dict[str, Any]) -> list[str]:
    names = ("version", "architecture", "digest", "trained_at")
    told = [_short(fact[name]) for name in names] + [_short(value) for value in fact["test"].values()]
    return ["production" if fact["production"] else "", *told, _short(fact["git_commit"]), _short(fact["git_tag"])]


def _short(value: Any) -> str:
    """A cell: digests and commits to twelve digits, times to the second."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = "-" if value is None else str(value)
    text = re.sub(r"^(?:sha256:)?([0-9a-f]{12})[0-9a-f]{28,}", r"\1", text)
    return re.sub(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)\S*$", r"\1 \2", text)


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _tell_if_interrupted(repository: "Repository") -> None:
    entry = repository.interrupted()
    if entry is not None:
        click.echo(
            f"the {entry.action} of {entry.version} at {entry.at} is recorded and the link not yet moved; unless that "
            "is happening now, it was interrupted, and the next promote or rollback completes it"
        )


def _git_tags(folder: Path) -> set[str]:
    """Return the tags of models in the git repository around `folder`; none outside git."""
    import subprocess  # noqa: PLC0415

    command = ["git", "-C", str(folder), "tag", "--list", "model-v*"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return set()
    return set(found.stdout.split())
