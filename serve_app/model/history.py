"""The history of what was in production: append-only, one line a move, each line chained to the one before it."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, ValidationError

from serve_app.config import Section
from serve_app.errors import HistoryAltered


class Move(StrEnum):
    """How the link came to where it is."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Entry(Section):
    """One line of the history."""

    at: AwareDatetime
    action: Move
    version: str
    digest: str
    previous_version: str | None
    previous_digest: str | None
    """None as well when what was in production could not be verified."""
    who: str
    why: str
    previous_line: str
    """SHA-256 of the line before, of nothing for the first: no line can be changed, removed or slipped in."""
    sha256: str
    """Of this line without this field, so that the last line, too, shows a change."""


@dataclass(frozen=True, slots=True)
class Served:
    """What a link led to. The digest is None when it could not be verified."""

    version: str
    digest: str | None


def sha256(content: bytes) -> str:
    """Return the digest by which lines are chained."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def line_of(entry: Entry) -> bytes:
    """Return the one spelling of an entry, without the line's end."""
    return _json(entry.model_dump(mode="json"))


def _seal(entry: Entry) -> str:
    return sha256(_json(entry.model_dump(mode="json", exclude={"sha256"})))


def sealed(**fields: Any) -> Entry:
    """Return an entry with its own digest filled in."""
    open_entry = Entry(**fields, sha256="")
    return open_entry.model_copy(update={"sha256": _seal(open_entry)})


def whole_lines(content: bytes) -> bytes:
    """Return the content without a last line that a kill left incomplete."""
    return content[: content.rfind(b"\n") + 1]


def read_entries(path: Path, content: bytes) -> list[Entry]:
    """Read all whole lines and check the chain. Raises HistoryAltered that names the line."""
    entries = []
    previous = b""
    for number, line in enumerate(whole_lines(content).split(b"\n")[:-1], start=1):
        entry = _entry(line)
        if entry is None:
            raise HistoryAltered(f"line {number} of {path} was altered; restore the file from a backup")
        if entry.previous_line != sha256(previous):
            raise HistoryAltered(
                f"line {number} of {path} does not follow the line before it: one of them was altered, or lines were "
                "removed or slipped in; restore the file from a backup"
            )
        entries.append(entry)
        previous = line
    return entries


def _entry(line: bytes) -> Entry | None:
    """Read one line; None when it is not exactly as it was written."""
    try:
        entry = Entry.model_validate_json(line)
    except ValidationError:
        return None
    return entry if line == line_of(entry) and entry.sha256 == _seal(entry) else None


def walk_of(entries: Iterable[Entry], serving: Served | None) -> list[Served]:
    """What was in production, oldest first, without what was rolled back; what serves now is the last.

    A link that was moved by hand shows in what the next entry left behind, and counts as a promotion.
    """
    walk: list[Served] = []
    for entry in entries:
        if entry.previous_version is not None:
            _arrive(walk, Served(entry.previous_version, entry.previous_digest))
        if entry.action is Move.ROLLBACK:
            walk.pop()
        else:
            _arrive(walk, Served(entry.version, entry.digest))
    if serving is not None:
        _arrive(walk, serving)
    return walk


def _arrive(walk: list[Served], served: Served) -> None:
    if not walk or walk[-1].version != served.version:
        walk.append(served)
    elif served.digest is not None:
        walk[-1] = served
