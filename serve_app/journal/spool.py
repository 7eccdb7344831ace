"""The spool: what a router decided, in a file of its own until it is in the database.

A file is a sequence of frames: length and CRC-32 of the content (four bytes each, little-endian), then the content.
One `write` a call, no fsync: what is written survives the death of the process, not that of the machine. Whoever holds
the `flock` of a file owns it. The kernel lets go when the owner dies, and any router of the node may ship the rest.
"""

import fcntl
import logging
import os
import struct
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from serve_app.errors import SpoolUnavailable

SEGMENT_BYTES = 64 * 2**20
SUFFIX = ".spool"
DAMAGED = ".damaged"
_HEAD = struct.Struct("<II")
TURN_S = 60.0
"""After which a file with something in it is followed by another, so that a router that dies leaves little behind that
was shipped: whoever adopts it ships all of it again, also what has been deleted from the database since."""
_READ = 4 * 2**20
"""Bytes that are read, and shipped, at once."""

Keep = Callable[[Sequence[bytes]], None]
"""Takes contents into the database, all or none of them; those that it has already do no harm."""

log = logging.getLogger(__name__)


def framed(content: bytes) -> bytes:
    """Return the frame of a content."""
    return _HEAD.pack(len(content), zlib.crc32(content)) + content


class Damaged(Exception):
    """What follows is no whole record. In a file of our own this is a broken disk."""


def contents(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield each content, and where its frame ends, up to the first that is not whole, or not as it was written."""
    start = 0
    while len(data) - start >= _HEAD.size:
        length, checksum = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        content = data[start + _HEAD.size : end]
        if end > len(data) or zlib.crc32(content) != checksum:
            return
        yield content, end
        start = end


@dataclass(slots=True, eq=False)
class _Segment:
    """One file that this process owns."""

    path: Path
    file: int
    begun: float = 0.0
    written: int = 0
    shipped: int = 0

    def close(self) -> None:
        """Let go of the file; what was not shipped stays in it."""
        if self.shipped == self.written:
            self.path.unlink(missing_ok=True)
        os.close(self.file)


class Spool:
    """Appends on the event loop, ships in a thread. One object a process; a folder may have many."""

    def __init__(
        self, folder: Path, segment_bytes: int = SEGMENT_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin a file. Raises SpoolUnavailable when the folder cannot be written."""
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._clock = clock
        self._full: list[_Segment] = []
        self._current = self._begin()
        self._closed = False

    def append(self, records: Sequence[bytes]) -> None:
        """Keep records, all or none. Raises SpoolUnavailable: what they are about must then not be answered."""
        if self._closed:
            raise SpoolUnavailable("this router is ending; ask again, and another one answers")
        data = b"".join(map(framed, records))
        segment = self._current
        try:
            if segment.written >= self._segment_bytes:
                segment = self._rotated()
            _append(segment, data)
        except OSError as error:
            raise _unavailable(self._folder, error) from error
        segment.written += len(data)

    def ship(self, keep: Keep) -> int:
        """Hand over what is here and what dead routers left; return how many records.

        Raises what `keep` raises, and has then forgotten nothing. Only one thread may call it.
        """
        shipped, current = 0, None
        while current is not self._current:  # it may be followed by another at any time, and is full then
            current = self._current
            shipped += self._ship_full(keep)
            shipped += _ship(current, keep)
        return shipped + sum(self._adopt(path, keep) for path in sorted(self._folder.glob(f"*{SUFFIX}")))

    def _ship_full(self, keep: Keep) -> int:
        shipped = 0
        while self._full:
            shipped += _ship(self._full[0], keep)
            self._full.pop(0).close()
        return shipped

    def close(self) -> None:
        """Let go of the files; what was not shipped is for whoever adopts it. Afterwards it takes nothing."""
        for segment in (*self._full, self._current):
            segment.close()
        self._full.clear()
        self._closed = True

    def turn_over(self) -> None:
        """Begin another file when this one is old. Raises SpoolUnavailable, and goes on with this one."""
        if self._current.written and self._clock() - self._current.begun >= TURN_S:
            self._rotated()

    def _rotated(self) -> _Segment:
        following = self._begin()
        self._full.append(self._current)
        self._current = following
        return following

    def _begin(self) -> _Segment:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            while True:
                path = self._folder / f"{uuid.uuid4().hex}{SUFFIX}"
                file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
                # Between these lines another router may have taken it for an orphan, and removed it.
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file).st_nlink:
                    return _Segment(path, file, self._clock())
                os.close(file)
        except OSError as error:
            raise _unavailable(self._folder, error) from error

    def _adopt(self, path: Path, keep: Keep) -> int:
        if path in {segment.path for segment in (*self._full, self._current)}:
            return 0
        orphan = _locked(path)
        if orphan is None:
            return 0
        try:
            shipped = _ship(orphan, keep)
            path.unlink()
        except Damaged:
            _set_aside(orphan)
            return 0
        finally:
            os.close(orphan.file)
        return shipped


def _set_aside(orphan: _Segment) -> None:
    """Keep what nobody can ship: a write that its router did not survive (nobody was answered), or a broken disk."""
    left = orphan.written - orphan.shipped
    log.error("the last %d bytes of %s are no whole records; it is kept, ending in %s", left, orphan.path, DAMAGED)
    orphan.path.rename(orphan.path.with_suffix(DAMAGED))


def _append(segment: _Segment, data: bytes) -> None:
    written = os.write(segment.file, data)
    if written < len(data):  # the disk is full
        os.ftruncate(segment.file, segment.written)
        raise OSError(f"{written} of {len(data)} bytes could be written")


def _locked(path: Path) -> _Segment | None:
    """Return a file that nobody owns, as ours; None when somebody does, or it is gone."""
    try:
        file = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between these lines another router may have shipped it, and removed or renamed it.
        found = os.fstat(file)
        if os.path.samestat(path.stat(), found):
            return _Segment(path, file, written=found.st_size)
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(file)
    return None


def _ship(segment: _Segment, keep: Keep) -> int:
    """Hand over the frames of a file that are not yet shipped. Raises Damaged, after those before it."""
    shipped = 0
    while segment.shipped < segment.written:  # of a file that is closed by now, nothing is left
        found = _batch(segment)
        keep([content for content, _ in found])
        segment.shipped += found[-1][1]
        shipped += len(found)
    return shipped


def _batch(segment: _Segment) -> list[tuple[bytes, int]]:
    """Return some of what is left, and where each ends. Raises Damaged."""
    left = segment.written - segment.shipped
    size = min(left, _READ)
    while True:
        found = list(contents(os.pread(segment.file, size, segment.shipped)))
        if found:
            return found
        if size == left:
            raise Damaged(f"{segment.path} at byte {segment.shipped}")
        size = min(left, 2 * size)  # one record is larger than what was read


def _unavailable(folder: Path, error: OSError) -> SpoolUnavailable:
    return SpoolUnavailable(f"decisions cannot be kept, so none is given ({type(error).__name__}): {folder}")
