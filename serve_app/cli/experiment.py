"""The commands `experiment …`: whether a candidate is better, by what really happened."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import AS_JSON, MODELS_DIR, short, table
from serve_app.cli.journal import JOURNAL, open_journal

if TYPE_CHECKING:
    from serve_app.evidence import Experiments

_SCORES = ("brier", "log_loss", "average_precision", "calibration_error", "signals", "hit_rate")


@click.group()
def experiment() -> None:
    """See what the journal says of a candidate beside production."""


def _experiments(url: str, models_dir: Path) -> "Experiments":
    from serve_app.evidence import Experiments  # noqa: PLC0415
    from serve_app.journal import ReleaseLines  # noqa: PLC0415
    from serve_app.model.repository import Repository  # noqa: PLC0415
    from serve_app.router.releases import Ledger  # noqa: PLC0415

    engine, repository = open_journal(url), Repository(models_dir)
    return Experiments(engine, Ledger(ReleaseLines(engine)), repository.names, repository.bundle)


@experiment.command("list")
@JOURNAL
@MODELS_DIR
def show(url: str, models_dir: Path) -> None:
    """Show every pair of bundles that were production and candidate."""
    found = _experiments(url, models_dir).list()
    table(("NAME", "SINCE", "EPOCHS"), [[one["name"], short(one["since"]), str(len(one["epochs"]))] for one in found])


@experiment.command()
@click.argument("name")
@JOURNAL
@MODELS_DIR
@AS_JSON
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write a page with plots there.")
def report(name: str, url: str, models_dir: Path, as_json: bool, html: Path | None) -> None:
    """Say whether the candidate of the experiment NAME, such as v1.0-vs-v1.1, is better."""
    found = _experiments(url, models_dir).report(name)
    if html is not None:
        from serve_app.evidence.page import page  # noqa: PLC0415

        html.write_text(page(found))
    click.echo(json.dumps(found, indent=2)) if as_json else _tell(found)


def _tell(found: dict[str, Any]) -> None:
    paired = found["paired"]
    click.echo("predicted by both: " + _counted(paired["counts"]))
    rows = [
        [name, found["variants"][name]["version"], *(short(scores[score]) for score in _SCORES)]
        for name, scores in paired["variants"].items()
    ]
    table(("VARIANT", "VERSION", *(score.upper().replace("_", " ") for score in _SCORES)), rows)
    for name, one in found["variants"].items():
        abstained = f", abstained {_counted(one['abstained'])}" if one["abstained"] else ""
        click.echo(f"{name} answered {one['answered']:,}{abstained}; outcomes {_counted(one['outcomes'])}")
    for doubt in found["doubts"]:
        click.echo(f"not to be believed: {doubt}")
    click.echo(f"{found['verdict']['advice']}: {found['verdict']['because']}")


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{n:,} {name}" for name, n in counts.items())
