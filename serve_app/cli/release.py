"""The commands `release …`: what is in force on a running graph, and changes of it, over HTTP."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from serve_app.cli.common import AS_JSON, WHO, WHY, login, short, table

if TYPE_CHECKING:
    from serve_app.client import SignalClient

URL = click.option("--url", default="http://127.0.0.1:8000", show_default=True, help="Of the graph.")
CONTROL_KEY = click.option(
    "--key", envvar="SIGNALGRAPH_CONTROL_KEY", default="", help="The control key [default: $SIGNALGRAPH_CONTROL_KEY]."
)
API_KEY = click.option(
    "--api-key", envvar="SIGNALGRAPH_API_KEY", default="", help="Where the graph asks for one [$SIGNALGRAPH_API_KEY]."
)
VARIANT = click.Choice(["production", "candidate"])


@click.group()
def release() -> None:
    """See and change what a running graph serves: which symbols the candidate answers, and which bundle is which."""


def _showing(part: str) -> Callable[[Callable[[Any], None]], Callable[..., None]]:
    """Give a command a part of what the graph says of its releases, and the options that this takes."""

    def decorate(command: Callable[[Any], None]) -> Callable[..., None]:
        @URL
        @API_KEY
        @AS_JSON
        @wraps(command)
        def showing(url: str, api_key: str, as_json: bool) -> None:
            with _graph(url, api_key) as graph:
                found = graph.releases()[part]
            if as_json:
                click.echo(json.dumps(found, indent=2, ensure_ascii=False))
            else:
                command(found)

        return showing

    return decorate


@release.command()
@_showing("in_force")
def show(entry: dict[str, Any]) -> None:
    """Show the release in force."""
    _tell(entry)


@release.command()
@_showing("history")
def history(entries: list[dict[str, Any]]) -> None:
    """Show every release, oldest first."""
    headings = ("EPOCH", "AT", "STEP", "PRODUCTION", "CANDIDATE", "SHARE", "WHO", "WHY")
    table(headings, [_cells(entry) for entry in entries])


def _changing(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that all changes share."""

    @URL
    @CONTROL_KEY
    @WHO
    @WHY
    @wraps(command)
    def changing(url: str, key: str, who: str | None, why: str, **options: Any) -> None:
        name, fields = command(**options)
        with _graph(url, key) as graph:
            _tell(graph.change_release(name, {**fields, "who": who or login(), "why": why}))

    return changing


@release.command()
@click.option("--share", type=click.FloatRange(0, 1), help="Of the symbols, that the candidate shall answer.")
@click.option("--salt", help="Another draws other symbols.")
@click.option("--pin", "pins", type=(str, VARIANT), multiple=True, help="SYMBOL VARIANT; all pins there shall be.")
@click.option("--no-pins", is_flag=True, help="Remove all pins.")
@_changing
def split(
    share: float | None, salt: str | None, pins: tuple[tuple[str, str], ...], no_pins: bool
) -> tuple[str, dict[str, Any]]:
    """Let the candidate answer other symbols; what is not said stays."""
    asked = {"candidate_share": share, "salt": salt, "pins": dict(pins) if pins or no_pins else None}
    fields = {name: value for name, value in asked.items() if value is not None}
    if not fields:
        raise click.UsageError("say what shall change: --share, --salt, --pin or --no-pins")
    return "split", fields


@release.command()
@URL
@API_KEY
@click.option("--share", type=click.FloatRange(0, 1), required=True)
def preview(url: str, api_key: str, share: float) -> None:
    """Show which symbols another share would move; nothing changes."""
    with _graph(url, api_key) as graph:
        moves = graph.preview({"candidate_share": share})
    for move in moves:
        click.echo(f"{move['symbol']}: {move['from']} → {move['to']}")
    click.echo(f"{len(moves)} symbol{'' if len(moves) == 1 else 's'} would move")


@release.command()
@click.argument("version")
@_changing
def candidate(version: str) -> tuple[str, dict[str, Any]]:
    """Load another VERSION beside what serves, and make it the candidate; it answers nobody yet."""
    return "candidate", {"version": version}


@release.command()
@click.argument("switch", type=click.Choice(["on", "off"]))
@click.option("--share", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Of the decisions.")
@_changing
def shadow(switch: str, share: float) -> tuple[str, dict[str, Any]]:
    """Let each variant also score what the other answers, or end that; no answer waits for it."""
    return "shadow", {"shadow": switch == "on", "share": share}


@release.command()
@click.option("--guarded", is_flag=True, help="Step by step, by itself, and back by itself when a guardrail trips.")
@click.option("--pin", "pins", multiple=True, metavar="SYMBOL", help="Guarded: first of all for these.")
@click.option("--share", "shares", type=click.FloatRange(0, 1), multiple=True, help="Guarded: one step for each.")
@click.option("--step-minutes", type=click.FloatRange(min=0, min_open=True), help="Guarded: of each step, at least.")
@click.option("--min-answers", type=click.IntRange(min=1), help="Guarded: that a step needs to be over.")
@click.option("--wait-for-evidence", is_flag=True, help="Guarded: production only once the verdict is promote.")
@_changing
def promote(guarded: bool, **asked: Any) -> tuple[str, dict[str, Any]]:
    """Make the candidate production; production stays loaded as the candidate, and answers nobody."""
    minutes, answers = asked.pop("step_minutes"), asked.pop("min_answers")
    plan = {name: value for name, value in asked.items() if value}
    if minutes is not None:
        plan["step_s"] = 60 * minutes
    if answers is not None:
        plan["guardrails"] = {"min_answers": answers}
    if plan and not guarded:
        raise click.UsageError("these options are for --guarded")
    return "promote", {"plan": plan} if guarded else {}


@release.command()
@_changing
def rollback() -> tuple[str, dict[str, Any]]:
    """End what the candidate answers; when it answers nobody, undo the last promotion."""
    return "rollback", {}


@contextmanager
def _graph(url: str, key: str) -> "Iterator[SignalClient]":
    """Give a client; what it meets becomes a message."""
    import httpx2  # noqa: PLC0415

    from serve_app.client import RequestRefused, SignalClient  # noqa: PLC0415

    try:
        with SignalClient(url, key) as client:
            yield client
    except RequestRefused as error:
        raise click.ClickException(str(error)) from error
    except httpx2.HTTPError as error:
        raise click.ClickException(f"{url} does not answer: {error}; is the graph running?") from error


def _cells(entry: dict[str, Any]) -> list[str]:
    versions, assignment = entry["versions"], entry["release"]["assignment"]
    named = [versions[name] or short(entry["release"][name]) for name in ("production", "candidate")]
    facts = [entry["epoch"], entry["at"], entry["step"], *named, f"{assignment['candidate_share']:.0%}"]
    return [*map(short, facts), entry["who"], entry["error"] or entry["why"]]


def _tell(entry: dict[str, Any]) -> None:
    from serve_app.router.plan import Plan  # noqa: PLC0415

    epoch, at, step, production, candidate, share, who, why = _cells(entry)
    pins = entry["release"]["assignment"]["pins"]
    pinned = "".join(f", {symbol} pinned to {variant}" for symbol, variant in sorted(pins.items()))
    share_of_all = entry["release"]["shadow_share"]
    sample = "" if share_of_all == 1 else f" for {share_of_all:.0%} of the decisions"
    shadow = f", shadow on{sample}" if entry["release"]["shadow"] else ""
    plan = entry["release"]["plan"]
    guarded = f", guarded: {Plan.model_validate(plan)}" if plan else ""
    more = f"{pinned}{shadow}{guarded}"
    click.echo(f"epoch {epoch}: production {production}, candidate {candidate} with {share} of the symbols{more}")
    click.echo(f"since {at}: {step} by {who} ({why})")
