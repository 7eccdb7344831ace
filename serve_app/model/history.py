"""The history of what was in production: append-only, one line a move, each line chained to the one before it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from pydantic import AwareDatetime

from serve_app.chain import Link, read_chain


class Move(StrEnum):
    """How the link came to where it is."""

    PROMOTE = "promote"
    ROLLBACK = "rollback"


class Entry(Link):
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


@dataclass(frozen=True, slots=True)
class Served:
    """What a link led to. The digest is None when it could not be verified."""

    version: str
    digest: str | None


def whole_lines(content: bytes) -> bytes:
    """Return the content without a last line that a kill left incomplete."""
    return content[: content.rfind(b"\n") + 1]


def read_entries(path: Path, content: bytes) -> list[Entry]:
    """Read all whole lines and check the chain. Raises HistoryAltered that names the line."""
    return read_chain(Entry, whole_lines(content).split(b"\n")[:-1], str(path))


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
