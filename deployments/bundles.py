"""Where the processes of a graph find bundles: what was there when the application was built, and the versions beside.

What a replica has made of a bundle (a stage, the stages of a router) it keeps by digest; see `Held`.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from serve_app.errors import BundleNotFound, BundleNotLoaded, DigestMismatch
from serve_app.model import Bundle, load_bundle
from serve_app.model.repository import Repository

T = TypeVar("T")

KEPT = 4
"""Bundles that a process keeps at most: the two that serve, and those before, so that going back is at once."""


@dataclass(frozen=True, slots=True)
class BundleRef:
    """A folder and the digest of what was there when the application was built.

    The folder is resolved: a replica that restarts after `models/production` has moved still loads what its
    neighbours hold.
    """

    path: str
    digest: str

    @classmethod
    def of(cls, path: str) -> "BundleRef":
        """Verify the bundle at `path` and refer to it. Raises BundleNotFound or BundleCorrupt."""
        bundle = load_bundle(path)
        return cls(str(bundle.path), bundle.digest)

    def load(self) -> Bundle:
        """Load and verify the bundle. Raises DigestMismatch when it is another one by now."""
        bundle = load_bundle(self.path)
        if bundle.digest != self.digest:
            raise DigestMismatch(f"{self.path} is {bundle.digest}, the application was built on {self.digest}")
        return bundle


@dataclass(frozen=True, slots=True)
class Shelf:
    """The bundles that a graph was built on, and the versions in the folders where they lie."""

    refs: tuple[BundleRef, ...]

    @classmethod
    def of(cls, *paths: str) -> "Shelf":
        """Verify the bundles at `paths`. Raises BundleNotFound or BundleCorrupt."""
        return cls(tuple(map(BundleRef.of, paths)))

    def find(self, digest: str) -> BundleRef:
        """Return where a bundle is. Raises BundleNotLoaded."""
        for ref in self._all():
            if ref.digest == digest:
                return ref
        raise BundleNotLoaded(f"no bundle in {self._folders()} is {digest}; put that version back")

    def named(self, version: str) -> BundleRef:
        """Return a version. Raises BundleNotFound."""
        versions = self._versions()
        if version not in versions:
            raise BundleNotFound(f"{self._folders()} holds no {version}, but {', '.join(versions) or 'no version'}")
        return versions[version]

    def names(self) -> dict[str, str]:
        """Return the version of each digest."""
        return {ref.digest: version for version, ref in self._versions().items()}

    def _all(self) -> Iterator[BundleRef]:
        yield from self.refs  # the usual answer, which reads no folder
        yield from self._versions().values()

    def _versions(self) -> dict[str, BundleRef]:
        found: dict[str, BundleRef] = {}
        for folder in self._parents():
            for version, digest in Repository(folder).digests().items():
                found.setdefault(version, BundleRef(str(folder / version), digest))
        return found

    def _parents(self) -> list[Path]:
        return list(dict.fromkeys(Path(ref.path).parent for ref in self.refs))

    def _folders(self) -> str:
        return " and ".join(map(str, self._parents()))


class Held(Generic[T]):
    """What was made of bundles, by digest: made when first asked for, and kept for the latest few."""

    def __init__(self, shelf: Shelf, make: Callable[[Bundle], T], kept: int = KEPT) -> None:
        """`make` takes its time, and is called in a thread. `kept`: how many of the latest."""
        self._shelf = shelf
        self._make = make
        self._kept = kept
        self._made: OrderedDict[str, T] = OrderedDict()
        self._making: dict[str, asyncio.Future[T]] = {}

    def __iter__(self) -> Iterator[str]:
        """Iterate over the digests, the longest unused first."""
        return iter(list(self._made))

    def values(self) -> Iterable[T]:
        """Return everything that is held."""
        return list(self._made.values())

    def now(self, digest: str) -> T | None:
        """Return what is held of a bundle, or None."""
        made = self._made.get(digest)
        if made is not None:
            self._made.move_to_end(digest)
        return made

    def load(self, digest: str) -> T:
        """Return what is held of a bundle, made here and now if need be. Raises BundleNotLoaded, and as `make`."""
        made = self.now(digest)
        return self._keep(digest, self._new(digest)) if made is None else made

    async def fetch(self, digest: str) -> T:
        """Do what `load` does, in a thread, and once for all who ask at the same time."""
        made = self.now(digest)
        if made is not None:
            return made
        making = self._making.get(digest)
        if making is None:
            making = self._making[digest] = asyncio.ensure_future(self._new_in_a_thread(digest))
        # Who asked may give up; the others, and the next one, still want it.
        return await asyncio.shield(making)

    async def _new_in_a_thread(self, digest: str) -> T:
        try:
            return self._keep(digest, await asyncio.to_thread(self._new, digest))
        finally:
            del self._making[digest]

    def _new(self, digest: str) -> T:
        return self._make(self._shelf.find(digest).load())

    def _keep(self, digest: str, made: T) -> T:
        self._made[digest] = made
        self._made.move_to_end(digest)
        while len(self._made) > self._kept:
            self._made.popitem(last=False)
        return made
