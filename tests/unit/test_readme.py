"""What the README lists is what there is."""

import re
from collections.abc import Iterator
from pathlib import Path

import click

from deployments.cli import main
from serve_app.errors import SERVER_CODES, ServeAppError
from tests.unit.test_errors import EVERY
from tests.unit.test_prometheus import NEVER_ANSWERED

ROOT = Path(__file__).parents[2]
CODE = re.compile(r"`([^`]+)`")
BASES = {"unusable"}
"""Codes of what is always raised as something more precise."""


def table(heading: str, first: str) -> list[list[str]]:
    """The cells of the rows below a table's head, which begins with `first`, in the section under a heading."""
    section = (ROOT / "README.md").read_text().split(f"\n{heading}\n")[1].split("\n## ")[0]
    rows = section.split(f"\n| {first} |")[1].split("\n\n")[0].splitlines()[2:]
    return [row.strip("| ").split(" | ") for row in rows]


def test_every_code_that_a_request_may_meet_stands_beside_its_status() -> None:
    shown = {(int(status), code) for status, codes in table("## HTTP", "status") for code in CODE.findall(codes)}
    met = {(kind.status_code, kind.code) for kind in EVERY if kind.code not in NEVER_ANSWERED | BASES}
    assert met <= shown
    assert {code for status, code in shown if status >= 500} == SERVER_CODES - NEVER_ANSWERED
    assert (ServeAppError.status_code, ServeAppError.code) in shown


def paths(group: click.Command, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command that does something, with the words that lead to it."""
    if not isinstance(group, click.Group):
        yield above, group
        return
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield from paths(command, (*above, name))


def typed(cell: str) -> list[str]:
    """The commands of a cell: `signalgraph models list`, `history` are two of `signalgraph models`."""
    found: list[str] = []
    for code in CODE.findall(cell):
        whole = code.startswith(("signalgraph ", "make ")) or not found
        found.append(code if whole else f"{found[-1].rpartition(' ')[0]} {code}")
        found[-1] = re.sub(r" (\[?[A-Z]+\]?|on|off)$", "", found[-1])
    return [code.removeprefix("signalgraph ") for code in found]


def test_every_command_stands_in_the_table_and_takes_the_options_beside_it() -> None:
    commands = {" ".join(path): command for path, command in paths(main)}
    rows = [(typed(cell), text) for cell, text in table("## Commands", "command") if cell.startswith("`signalgraph")]
    assert sorted(commands) == sorted({name for names, _ in rows for name in names})
    for names, text in rows:
        options = {
            option for name in names for one in commands[name].params for option in (*one.opts, *one.secondary_opts)
        }
        assert set(re.findall(r"--[a-z-]+", text)) <= options, names


def test_every_variable_of_ours_stands_in_the_table() -> None:
    shown = {name for cell, _ in table("## Environment", "variable") for name in CODE.findall(cell)}
    files = [path for folder in ("serve_app", "deployments") for path in (ROOT / folder).rglob("*.py")]
    read = {name for path in files for name in re.findall(r"SIGNALGRAPH_[A-Z_]+", path.read_text())}
    assert {name for name in shown if name.startswith("SIGNALGRAPH_")} == read | {"SIGNALGRAPH_PROVE"}
