"""The commands `journal …`: decisions out of the database."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from sqlalchemy import Engine

JOURNAL = click.option(
    "--journal",
    "url",
    default="sqlite:///.signalgraph/releases.db",
    show_default=True,
    help="The database, as `journal.url` of the configuration names it.",
)
TIME = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"])


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)


def open_journal(url: str) -> "Engine":
    """Return the database. Raises click's error for a file that is not there: connecting would make an empty one."""
    from serve_app.journal import connect, from_here  # noqa: PLC0415

    found = from_here(url)
    prefix = "sqlite:///"
    if found.startswith(prefix) and not Path(found.removeprefix(prefix)).exists():
        raise click.ClickException(f"there is no {found.removeprefix(prefix)}; name the database with --journal")
    return connect(found)


@click.group()
def journal() -> None:
    """Take decisions out of the journal: as a file, or for good."""


@journal.command()
@JOURNAL
@click.option("--to", "path", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A Parquet file.")
@click.option("--since", type=TIME, help="Decisions made from then on, UTC.")
@click.option("--until", type=TIME, help="Decisions made before then, UTC.")
def export(url: str, path: Path, since: datetime | None, until: datetime | None) -> None:
    """Write decisions, with what came of them, as Parquet."""
    from serve_app.journal.keeping import export as write  # noqa: PLC0415

    try:
        n = write(open_journal(url), path, _utc(since), _utc(until))
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from error
    click.echo(f"{path}: {n:,} decisions")


@journal.command()
@JOURNAL
@click.option("--before", type=TIME, required=True, help="Decisions made before then, UTC.")
@click.confirmation_option(prompt="They cannot be brought back. Export them first. Go on?")
def forget(url: str, before: datetime) -> None:
    """Remove old decisions, and what came of them."""
    from serve_app.journal.keeping import forget as remove  # noqa: PLC0415

    click.echo(f"{remove(open_journal(url), before.replace(tzinfo=UTC)):,} decisions are gone")
