"""What the README lists is what there is."""

import re
from pathlib import Path

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
