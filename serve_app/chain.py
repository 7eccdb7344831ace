"""Records that are chained by their hashes: none can be changed, removed or slipped in without its showing.

What a chain cannot show is that whole records at its end were cut off, or that all from one on were written anew.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeVar

from pydantic import PrivateAttr

from serve_app.config import Section
from serve_app.errors import HistoryAltered

LinkT = TypeVar("LinkT", bound="Link")


class Link(Section):
    """One record of a chain; subclasses say what it records."""

    previous_line: str
    """SHA-256 of the line before, of nothing for the first."""
    sha256: str
    """Of this line without this field, so that the last line, too, shows a change."""
    _line: bytes = PrivateAttr(b"")

    @property
    def line(self) -> bytes:
        """The record as it was written, without the line's end: a later release of this code may know more fields."""
        return self._line

    def written(self, line: bytes) -> Self:
        """Remember how it was written."""
        self._line = line
        return self


def sha256(content: bytes) -> str:
    """Return the digest by which lines are chained."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _json(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()


def sealed(kind: type[LinkT], before: Link | None, **fields: Any) -> LinkT:
    """Return a record that follows another, or begins a chain, with its own digest filled in."""
    link = kind(**fields, previous_line=sha256(before.line if before else b""), sha256="")
    unsealed = {**link.model_dump(mode="json", exclude=set(Link.model_fields)), "previous_line": link.previous_line}
    seal = sha256(_json(unsealed))
    return link.model_copy(update={"sha256": seal}).written(_json({**unsealed, "sha256": seal}))


def read_chain(kind: type[LinkT], lines: Iterable[bytes], where: str) -> list[LinkT]:
    """Read lines and check the chain. Raises HistoryAltered that names the line and `where` it is."""
    links = []
    previous = b""
    for number, line in enumerate(lines, start=1):
        link = _link(kind, line)
        if link is None:
            raise HistoryAltered(f"line {number} of {where} was altered; restore it from a backup")
        if link.previous_line != sha256(previous):
            raise HistoryAltered(
                f"line {number} of {where} does not follow the line before it: one of them was altered, or lines were "
                "removed or slipped in; restore it from a backup"
            )
        links.append(link)
        previous = line
    return links


def _link(kind: type[LinkT], line: bytes) -> LinkT | None:
    """Read one line; None when it is not exactly as it was written."""
    try:
        document = json.loads(line)
        link = kind.model_validate_json(line)
    except ValueError:
        return None
    unsealed = {name: value for name, value in document.items() if name != "sha256"}
    intact = line == _json({**unsealed, "sha256": link.sha256}) and link.sha256 == sha256(_json(unsealed))
    return link.written(line) if intact else None
