"""The model repository: one folder a version, a link to what is in production, and a history of how it moved.

    models/v1.0/  models/v1.1/  models/production → v1.0  models/history.jsonl  models/.lock

* New folders and the link are made under a hidden name and renamed: they are there whole, or not at all.
* A line of the history is on disk before the link moves. Whoever is killed in between leaves the link where it was,
  and whoever takes the lock next moves it to where the last line says.
* An incomplete last line is an operation that was killed before it began; the next one removes it.
* All changes are made under one lock, so what bears an unfinished name while the lock is free belongs to nobody.
"""

import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve_app.chain import sealed
from serve_app.errors import BundleError, BundleNotFound, RepositoryError, ServeAppError
from serve_app.model.atomic import append, locked, new_folder, replace_link, truncate
from serve_app.model.bundle import Bundle, digest_of, load_bundle
from serve_app.model.history import Entry, Move, Served, read_entries, walk_of, whole_lines

LINK = "production"
HISTORY = "history.jsonl"
VERSION = re.compile(r"v(\d+)\.(\d+)")


@dataclass(frozen=True, slots=True)
class Version:
    """A folder of the repository: a verified bundle, or the reason why it is none."""

    name: str
    digest: str | None = None
    architecture: str | None = None
    metadata: Mapping[str, Any] | None = None
    reason: str | None = None


class Repository:
    """The models in one folder. Reading takes no lock and writes nothing."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def versions(self) -> list[Version]:
        """Verify every version and return them in ascending order; entries that are not named vX.Y are passed over."""
        return [self._version(name) for name in self._names()]

    def digests(self) -> dict[str, str]:
        """Return the digest of each version, by its manifest alone; what is no bundle is passed over."""
        found = {}
        for name in self._names():
            with suppress(BundleError):
                found[name] = digest_of(self.folder / name)
        return found

    def production(self) -> str | None:
        """Return the version that the link leads to; a path when it leads out of the repository; None without link."""
        link = self.folder / LINK
        if not link.is_symlink():
            if link.exists():
                raise RepositoryError(f"{link} is not a link; move it away, then promote a version")
            return None
        target = link.readlink()
        inside = (self.folder / target).parent.resolve() == self.folder.resolve()
        return target.name if inside else str(target)

    def history(self) -> list[Entry]:
        """Return every promotion and rollback, oldest first. Raises HistoryAltered.

        The chain cannot show that whole lines at its end were cut off, or that all from one line on were rewritten.
        """
        path = self.folder / HISTORY
        return read_entries(path, path.read_bytes()) if path.exists() else []

    def interrupted(self) -> Entry | None:
        """Return the last entry if it was killed before it moved the link: the next promotion or rollback moves it."""
        entries = self.history()
        last = entries[-1] if entries else None
        if last is None or last.version == last.previous_version or self.production() != last.previous_version:
            return None
        return last

    def add(self, folder: Path) -> Bundle:
        """Copy a bundle from elsewhere, byte by byte, to where its version belongs, and return it as verified there.

        Raises BundleNotFound or BundleCorrupt, or FileExistsError when the version is there already.
        """
        bundle = load_bundle(folder)
        target = self.folder / bundle.version
        with new_folder(target) as made:
            for path in bundle.path.iterdir():
                shutil.copyfile(path, made / path.name)
            copied = load_bundle(made)
        return replace(copied, path=target.resolve())

    def promote(self, version: str, *, who: str, why: str, now: datetime) -> Entry:
        """Verify a version, record its promotion, and move the link to it.

        What is in production already may be promoted again: that is recorded, and no step for rollbacks.
        Raises RepositoryError, HistoryAltered, BundleNotFound or BundleCorrupt, and has then recorded nothing.
        """
        _check(now, who=who, why=why)
        with locked(self._existing()):
            entries = self._recovered()
            return self._move(Move.PROMOTE, self._verified(version), entries, who, why, now)

    def rollback(self, *, who: str, why: str, now: datetime) -> Entry:
        """Go back to what was in production before what is there now; again and again back to the first.

        A rollback undoes the promotion: after it, the version that was left is no longer "before" anything. Raises
        RepositoryError when there is nothing before, or when it is not the bundle that served then; as `promote` else.
        """
        _check(now, who=who, why=why)
        with locked(self._existing()):
            entries = self._recovered()
            walk = walk_of(entries, self._serving())
            if len(walk) < 2:
                raise RepositoryError("the history knows nothing that was in production before; promote a version")
            before = walk[-2]
            bundle = self._verified(before.version)
            if before.digest not in (None, bundle.digest):
                raise RepositoryError(
                    f"{before.version} is {bundle.digest} now and was {before.digest} when it was in production; "
                    "restore that bundle, or promote another version"
                )
            return self._move(Move.ROLLBACK, bundle, entries, who, why, now)

    def names(self) -> dict[str, str]:
        """Return the version of each digest."""
        return {digest: version for version, digest in self.digests().items()}

    def bundle(self, digest: str) -> Bundle:
        """Return the version of a digest, verified. Raises BundleNotFound or BundleCorrupt."""
        version = self.names().get(digest)
        if version is None:
            raise BundleNotFound(f"no version in {self.folder} is {digest}; put it back")
        return self._verified(version)

    def _names(self) -> list[str]:
        names = [path.name for path in self._existing().iterdir() if VERSION.fullmatch(path.name)]
        return sorted(names, key=_order)

    def _existing(self) -> Path:
        if not self.folder.is_dir():
            raise RepositoryError(f"there is no model repository at {self.folder}")
        return self.folder

    def _version(self, name: str) -> Version:
        try:
            bundle = self._verified(name)
        except (ServeAppError, OSError) as error:
            return Version(name, reason=str(error))
        return Version(name, bundle.digest, bundle.config.architecture, bundle.metadata)

    def _verified(self, version: str) -> Bundle:
        if not VERSION.fullmatch(version):
            raise RepositoryError(f"{version!r} is not a version of {self.folder}; versions are named like v1.2")
        path = self.folder / version
        if path.is_symlink():
            raise RepositoryError(f"{path} is a link, which may lead elsewhere tomorrow; put the bundle there itself")
        bundle = load_bundle(path)
        if bundle.version != version:
            raise RepositoryError(f"{path} holds {bundle.version}; put it into a folder of that name")
        return bundle

    def _serving(self) -> Served | None:
        version = self.production()
        if version is None:
            return None
        try:
            return Served(version, load_bundle(self.folder / version).digest)
        except BundleError:
            return Served(version, None)

    def _recovered(self) -> list[Entry]:
        """Under the lock: remove a torn line, finish what was interrupted, and return the history."""
        path = self.folder / HISTORY
        if path.exists():
            truncate(path, len(whole_lines(path.read_bytes())))
        last = self.interrupted()
        # What was interrupted may be gone or damaged by now; then the link stays on what it leads to.
        with suppress(ServeAppError):
            if last is not None and self._verified(last.version).digest == last.digest:
                replace_link(self.folder / LINK, last.version)
        return self.history()

    def _move(self, action: Move, bundle: Bundle, entries: list[Entry], who: str, why: str, now: datetime) -> Entry:
        before = self._serving()
        entry = sealed(
            Entry,
            entries[-1] if entries else None,
            at=now.astimezone(UTC),
            action=action,
            version=bundle.version,
            digest=bundle.digest,
            previous_version=before.version if before else None,
            previous_digest=before.digest if before else None,
            who=who,
            why=why,
        )
        append(self.folder / HISTORY, entry.line + b"\n")
        replace_link(self.folder / LINK, bundle.version)
        return entry


def _order(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in name.removeprefix("v").split("."))


def _check(now: datetime, **texts: str) -> None:
    if now.tzinfo is None:
        raise ValueError("now must say its time zone")
    for name, text in texts.items():
        if not text.strip() or not text.isprintable():
            raise RepositoryError(f"{name} must be one line of readable text, not {text!r}")
