"""The commands `models …`: list, promote and roll back versions."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import AS_JSON, MODELS_DIR, PRODUCTION, WHO, WHY, git, login, short, table

if TYPE_CHECKING:
    from serve_app.model.repository import Repository, Version


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
    table(headings, [_line_of(fact) for fact in facts])
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
    table(headings, [[short(entry[name]) for name in shown] for entry in entries])
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
        entry = move(*version, who=who or login(), why=why, now=datetime.now(UTC))
    except OSError as error:
        raise click.ClickException(f"cannot {action}: {error}") from error
    click.echo(
        f"{models_dir / PRODUCTION.name}: {entry.previous_version or 'nothing'} → {entry.version}, {entry.digest}"
    )
    click.echo("a graph that is running keeps the bundle it was started on")


def _facts(version: "Version", production: str | None, tags: set[str]) -> dict[str, Any]:
    from serve_app.model.bundle import tag_of  # noqa: PLC0415

    metadata = version.metadata or {}
    metrics = metadata.get("performance_metrics")
    test = metrics.get("test") if isinstance(metrics, dict) else None
    tag = tag_of(version.name)
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
    told = [short(fact[name]) for name in names] + [short(value) for value in fact["test"].values()]
    return ["production" if fact["production"] else "", *told, short(fact["git_commit"]), short(fact["git_tag"])]


def _tell_if_interrupted(repository: "Repository") -> None:
    entry = repository.interrupted()
    if entry is not None:
        click.echo(
            f"the {entry.action} of {entry.version} at {entry.at} is recorded and the link not yet moved; unless that "
            "is happening now, it was interrupted, and the next promote or rollback completes it"
        )


def _git_tags(folder: Path) -> set[str]:
    """Return the tags of models in the git repository around `folder`; none outside git."""
    return set((git(folder, "tag", "--list", "model-v*") or "").split())
