"""The commands that examine: `audit parity|lookahead|warmup` and `doctor`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from serve_app.cli.common import BUNDLE, DATA_HELP, FOLDER, bars_of, conclude, pipeline_of

if TYPE_CHECKING:
    from serve_app.audit import Histories
    from serve_app.doctor import Diagnosis
    from serve_app.model import Bundle

CommandT = TypeVar("CommandT", bound=Callable[..., None])


def _common(command: CommandT) -> CommandT:
    """Add the options that all audits take."""
    options = (
        click.option("--data", required=True, help=DATA_HELP),
        BUNDLE,
        click.option("--symbols", default="", help="Such as AAPL,MSFT [default: all that the bundle knows]."),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
def audit() -> None:
    """Hold what serving computes against whole histories."""


@audit.command()
@_common
@click.option("--stride", type=click.IntRange(1), default=1, show_default=True, help="Every n-th decision point.")
@click.option("--tolerance", type=click.FloatRange(0), default=0.0, show_default=True, help="Of scaled features.")
def parity(data: str, path: Path, symbols: str, stride: int, tolerance: float) -> None:
    """Compare every served window with the one that the full history gives."""
    import asyncio  # noqa: PLC0415

    from serve_app.audit import audit_parity  # noqa: PLC0415

    pipeline = pipeline_of(path)
    histories = _histories(pipeline.bundle, data, symbols)
    with _progress("windows") as progress:
        report = asyncio.run(audit_parity(pipeline, histories, stride, tolerance, progress))
    _say_left_out(histories)
    for reason, n in report.refused.items():
        click.echo(f"{n} windows not compared, since serving refuses them: {reason}")
    for m in report.first:
        what = "probability" if m.feature is None else f"feature {m.feature} in row {m.row}, scaled,"
        click.echo(f"{m.symbol} at {m.time}: {what} is {m.served!r} as served, {m.expected!r} from the full history")
    for feature, n in report.features.items():
        click.echo(f"{feature}: differs in {n} windows")
    click.echo(
        f"{report.windows} windows compared of {', '.join(report.symbols)}: {report.window_mismatches} mismatches"
    )
    click.echo(f"largest difference {report.max_difference:g}, allowed {tolerance:g}, in scaled features")
    click.echo(
        f"{report.probability_mismatches} mismatches in probability, largest {report.max_probability_difference:g}"
    )
    conclude(report.ok)


@audit.command()
@_common
@click.option("--points", type=click.IntRange(1), default=100, show_default=True, help="Decision points per symbol.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the disturbances.")
def lookahead(data: str, path: Path, symbols: str, points: int, seed: int) -> None:
    """Disturb later bars, and see that no feature and no action changes."""
    import asyncio  # noqa: PLC0415

    from serve_app.audit import audit_lookahead  # noqa: PLC0415

    pipeline = pipeline_of(path)
    histories = _histories(pipeline.bundle, data, symbols)
    with _progress("decision points") as progress:
        report = asyncio.run(audit_lookahead(pipeline, histories, points, seed, progress=progress))
    _say_left_out(histories)
    for leak in report.first:
        click.echo(
            f"{leak.symbol} at {leak.time}: {leak.feature} changes by {leak.change:g} when later bars are multiplied"
            f" by about {leak.factor:g}"
        )
    for feature, n in report.features.items():
        click.echo(f"{feature} reads later bars: changed in {n} of {report.tries} tries")
    click.echo(
        f"{report.points} decision points of {', '.join(report.symbols)}, {report.tries} disturbances of what comes"
        f" later: {len(report.features)} features changed, {report.actions_changed} actions"
    )
    conclude(report.ok)


@audit.command()
@_common
def warmup(data: str, path: Path, symbols: str) -> None:
    """Measure how many bars each feature reads, next to what it declares."""
    from serve_app.audit import audit_warmup  # noqa: PLC0415
    from serve_app.model import load_bundle  # noqa: PLC0415
    from serve_app.pipeline import rules_of  # noqa: PLC0415

    bundle = load_bundle(path)
    histories = _histories(bundle, data, symbols)
    with _progress("symbols") as progress:
        report = audit_warmup(rules_of(bundle), histories, progress)
    _say_left_out(histories)
    click.echo(f"{'feature':<30}{'declared':>10}{'measured':>10}")
    for feature in report.features:
        note = "" if feature.ok else "  disagree"
        click.echo(f"{feature.feature:<30}{feature.declared:>10}{feature.measured:>10}{note}")
    total = f"bars_needed, {report.lookback_window} rows"
    click.echo(f"{total:<30}{report.declared:>10}{report.measured:>10}")
    conclude(report.ok)


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--data", default=None, help=f"Look at its latest windows too. {DATA_HELP}")
@click.option("--features", is_flag=True, help="Show every feature, unscaled and scaled, next to training.")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def doctor(path: Path, data: str | None, features: bool, as_json: bool) -> None:
    """Examine a bundle: one line a check, with a verdict and what to do."""
    from serve_app.doctor import Verdict, examine  # noqa: PLC0415

    diagnosis = examine(path, bars_of(data) if data else None)
    if as_json:
        click.echo(_json(diagnosis))
    else:
        for check in diagnosis.checks:
            advice = f" → {check.advice}" if check.advice else ""
            click.echo(f"{check.verdict:<6}{check.name:<11}{check.finding}{advice}")
        if features:
            _show_features(diagnosis)
    conclude(diagnosis.verdict is not Verdict.FAIL)


def _show_features(diagnosis: "Diagnosis") -> None:
    columns = ("mean", "std", "min", "max", "train mean", "train std", "scaled mean", "scaled std", "far")
    click.echo("feature".ljust(30) + "".join(column.rjust(12) for column in columns))
    for s in diagnosis.features:
        numbers = (s.mean, s.std, s.minimum, s.maximum, s.training_mean, s.training_scale, s.scaled_mean, s.scaled_std)
        click.echo(s.feature.ljust(30) + "".join(f"{number:12.4g}" for number in numbers) + f"{s.far_share:12.0%}")


def _json(diagnosis: "Diagnosis") -> str:
    import orjson  # noqa: PLC0415  writes what is not a number as null

    document = {"verdict": diagnosis.verdict, "diagnosis": diagnosis}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _histories(bundle: "Bundle", data: str, symbols: str) -> "Histories":
    from serve_app.audit import histories_of  # noqa: PLC0415
    from serve_app.pipeline import rules_of  # noqa: PLC0415

    chosen = [symbol.strip() for symbol in symbols.split(",") if symbol.strip()]
    return histories_of(bundle, rules_of(bundle), bars_of(data), chosen)


def _say_left_out(histories: "Histories") -> None:
    for symbol, reason in histories.left_out.items():
        click.echo(f"left out {symbol}: {reason}")


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far an audit is, on standard error, while the block runs."""
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns: Any = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
