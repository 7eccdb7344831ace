"""The command `preflight`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from serve_app.cli.common import DATA_HELP, FOLDER, bars_of, conclude, git

if TYPE_CHECKING:
    from serve_app.preflight import Preflight, Tag


@click.command()
@click.argument("path", metavar="BUNDLE", type=FOLDER)
@click.option("--config", type=FOLDER, default=None, help="The configuration that will be deployed.")
@click.option("--data", default=None, help=f"Hold what it serves against these bars. {DATA_HELP}")
@click.option("--json", "as_json", is_flag=True, help="Everything, for programs.")
def preflight(path: Path, config: Path | None, data: str | None, as_json: bool) -> None:
    """Go through the deployment checklist: each item with its evidence, a verdict, and what to do.

    Nothing is changed: the rollback is rehearsed on a copy. Exits with 1 if BUNDLE must not be deployed.
    """
    from datetime import UTC, datetime  # noqa: PLC0415

    from serve_app.doctor import Verdict  # noqa: PLC0415
    from serve_app.preflight import Given  # noqa: PLC0415
    from serve_app.preflight import preflight as go_through  # noqa: PLC0415

    given = Given(datetime.now(UTC), bars_of(data) if data else None, config, find_tag)
    found = go_through(path, given)
    click.echo(_json(found) if as_json else _text(found))
    conclude(found.verdict is not Verdict.FAIL)


def _text(found: "Preflight") -> str:
    lines = []
    for item in found.items:
        lines.append(f"{item.title}: {item.verdict}")
        for check in item.checks:
            advice = f" → {check.advice}" if check.advice else ""
            lines.append(f"  {check.verdict:<6}{check.name:<13}{check.finding}{advice}")
    verdicts = [check.verdict for check in found.checks]
    counts = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in type(found.verdict))
    conclusion = "must not be deployed" if found.verdict == "fail" else "may be deployed"
    return "\n".join([*lines, f"{found.bundle} {conclusion}: {counts}"])


def _json(found: "Preflight") -> str:
    import orjson  # noqa: PLC0415

    items = [{"title": item.title, "verdict": item.verdict, "checks": item.checks} for item in found.items]
    document = {"verdict": found.verdict, "bundle": found.bundle, "digest": found.digest, "items": items}
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def find_tag(folder: Path, tag: str, commit: str) -> "Tag | None":
    """Look a tag up in the git repository around a folder; None outside git."""
    from serve_app.preflight import Tag  # noqa: PLC0415

    found = git(folder, "rev-parse", "--verify", "--quiet", f"refs/tags/{tag}^{{commit}}")
    if not found:
        return None
    return Tag(found, git(folder, "merge-base", "--is-ancestor", commit, found) is not None)
