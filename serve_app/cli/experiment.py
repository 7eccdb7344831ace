"""The commands `experiment …`: whether a candidate is better, by what really happened."""

import json

import click

from serve_app.cli.common import AS_JSON, short, table
from serve_app.cli.journal import JOURNAL, open_journal

_COLUMNS = ("brier", "brier_base_rate", "average_precision", "n_signals", "precision")


@click.group()
def experiment() -> None:
    """See what the journal says of a candidate beside production."""


@experiment.command()
@click.argument("production", type=click.Path())
@click.argument("candidate", type=click.Path())
@JOURNAL
@AS_JSON
def report(production: str, candidate: str, url: str, as_json: bool) -> None:
    """Compare two bundles on the bars that both predicted, one of them in the shadow."""
    from serve_app.evidence import gather  # noqa: PLC0415
    from serve_app.journal import scored_by_both  # noqa: PLC0415
    from serve_app.model import load_bundle  # noqa: PLC0415

    bundles = load_bundle(production), load_bundle(candidate)
    found = gather(scored_by_both(open_journal(url), [bundle.digest for bundle in bundles]), *bundles)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2))
        return
    click.echo(", ".join(f"{n:,} {name}" for name, n in found.counts.items()))
    rows = [
        [name, bundle.version, *(short(found.measured[name][column]) for column in _COLUMNS)]
        for name, bundle in zip(("production", "candidate"), bundles, strict=True)
    ]
    table(("VARIANT", "VERSION", "BRIER", "OF BASE RATE", "AVERAGE PRECISION", "SIGNALS", "RIGHT"), rows)
    click.echo(f"{found.verdict.advice}: {found.verdict.because}")
