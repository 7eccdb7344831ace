"""The commands `outcomes …`: what came of decisions, from later bars."""

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import click

from serve_app.cli.common import DATA_HELP, MODELS_DIR, bars_of
from serve_app.cli.journal import JOURNAL, open_journal


@click.group()
def outcomes() -> None:
    """Say what came of decisions."""


@outcomes.command()
@click.option("--data", required=True, help=DATA_HELP)
@JOURNAL
@MODELS_DIR
def label(data: str, url: str, models_dir: Path) -> None:
    """Label decisions by the bars that came after them, as the bundle that decided defines it.

    A decision whose horizon is not over stays open; one where a price is missing that it needs is censored: nobody will
    ever know. What was reported before stays as it is.
    """
    from serve_app.journal.outcomes import Outcomes  # noqa: PLC0415
    from serve_app.labelling import label_decisions  # noqa: PLC0415
    from serve_app.model.repository import Repository  # noqa: PLC0415

    bars, engine = bars_of(data), open_journal(url)
    found = label_decisions(Outcomes(engine), bars, Repository(models_dir).bundle, datetime.now(UTC))
    click.echo(", ".join(f"{n:,} {what}" for what, n in Counter(found.values()).items()) or "nothing to label")
