"""Releases: what is in force in each epoch, and how one follows from another. Every change is a line of the ledger.

    seed ──► split, shadow ──► promote ──► candidate, split, … ──► rollback

* **Another candidate** answers nobody yet, whatever the one before it answered.
* **Promotion** lets the candidate become production, and production the candidate, which answers nobody: it stays
  loaded, so that going back is at once.
* **Rollback** ends what the candidate answers; when it answers nobody, it undoes the last promotion that nobody has
  undone. Either way what was rolled back answers nobody afterwards.
* **A failure** (a candidate that could not be loaded) is recorded under the epoch that stays in force.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from itertools import pairwise
from typing import Protocol

from pydantic import AwareDatetime, Field, model_validator

from serve_app.chain import Link, line_of, read_chain, sealed
from serve_app.config import AssignmentConfig, Section
from serve_app.errors import ReleaseRefused
from serve_app.router.assignment import FIRST_EPOCH, Assignment
from serve_app.types import Thresholds, VariantName, other_of

WHERE = "the release ledger"


class Step(StrEnum):
    """How a release came to be."""

    SEED = "seed"
    SPLIT = "split"
    SHADOW = "shadow"
    THRESHOLDS = "thresholds"
    CANDIDATE = "candidate"
    """Another candidate, which answers nobody yet."""
    PROMOTE = "promote"
    ROLLBACK = "rollback"
    FAILED = "failed"


class Release(Section):
    """Which bundles serve, by digest, which symbols go to which, and by what thresholds."""

    production: str
    candidate: str | None = None
    assignment: AssignmentConfig = AssignmentConfig()
    shadow: bool = False
    """Whether each variant also scores what the other answers, off the request path."""
    thresholds: Mapping[VariantName, Thresholds] = Field(default_factory=dict)
    """In place of those of the bundle."""

    @model_validator(mode="after")
    def _candidate_is_there_when_used(self) -> "Release":
        if self.candidate is None and (
            self.assignment.asks_candidate or self.shadow or VariantName.CANDIDATE in self.thresholds
        ):
            raise ValueError("there is no candidate to send symbols to, to shadow with, or to have thresholds")
        return self

    def assigned(self) -> Assignment:
        """Return which variant answers which symbol."""
        return Assignment(self.assignment.candidate_share, self.assignment.salt, self.assignment.pins)

    def digests(self) -> dict[VariantName, str]:
        """Return the bundle of each variant that there is."""
        digests = {VariantName.PRODUCTION: self.production, VariantName.CANDIDATE: self.candidate}
        return {name: digest for name, digest in digests.items() if digest is not None}

    def quiet(self) -> "Release":
        """Return the release with a candidate that answers nobody, neither by share nor by pin."""
        return self.changed(assignment=AssignmentConfig(salt=self.assignment.salt))

    def changed(self, **fields: object) -> "Release":
        """Return the release with other values. Raises ReleaseRefused when they do not go together."""
        try:
            return Release.model_validate({**dict(self), **fields})
        except ValueError as error:
            raise ReleaseRefused(str(error)) from error


class Entry(Link):
    """One line of the ledger."""

    number: int
    """Of the line, from 1."""
    epoch: int
    """In force from this line on: one more than before, or the same after a failure."""
    at: AwareDatetime
    step: Step
    who: str
    why: str
    release: Release
    error: str | None = None
    """Of a failure."""


class Lines(Protocol):
    """Where the lines of a ledger are kept."""

    def read(self) -> Iterable[bytes]:
        """Return all lines, oldest first."""

    def newest(self) -> int:
        """Return the highest number, or 0."""

    def append(self, number: int, line: bytes) -> bool:
        """Keep a line, durably; False when there is one of that number already."""


@dataclass(frozen=True, slots=True)
class Author:
    """Who changes a release, why, and when."""

    who: str
    why: str
    at: datetime

    def __post_init__(self) -> None:
        for name, text in (("who", self.who), ("why", self.why)):
            if not text.strip() or not text.isprintable():
                raise ReleaseRefused(f"{name} must be one line of readable text, not {text!r}")


def _anything(_: Release) -> None:
    """Every release will do."""


class Ledger:
    """The chain of releases. Several processes may write: a line follows exactly the one that its author saw."""

    def __init__(self, lines: Lines, check: Callable[[Release], None] = _anything) -> None:
        """`check` raises ReleaseRefused for a release that nobody here could serve."""
        self._lines = lines
        self._check = check

    def newest(self) -> int:
        """Return the number of the newest line, 0 when there is none: cheap to ask, again and again."""
        return self._lines.newest()

    def entries(self) -> list[Entry]:
        """Return every entry, oldest first. Raises HistoryAltered when one is not as it was written."""
        return read_chain(Entry, self._lines.read(), WHERE)

    def seed(self, release: Release, author: Author) -> Entry:
        """Begin an empty ledger with a release; return what is in force. The ledger decides once there is one."""
        entries = self.entries()
        if entries:
            return entries[-1]
        self._check(release)
        first = _entry(None, Step.SEED, author, release)
        return first if self._lines.append(first.number, line_of(first)) else self.entries()[-1]

    def change(self, step: Step, change: Callable[[Release], Release], author: Author) -> Entry:
        """Put into force what `change` makes of what is. Raises ReleaseRefused, and has then recorded nothing."""
        return self._append(step, lambda entries: change(entries[-1].release), author)

    def rollback(self, author: Author) -> Entry:
        """See the module. Raises ReleaseRefused when there is nothing to go back to."""
        return self._append(Step.ROLLBACK, _rolled_back, author)

    def fail(self, error: str, author: Author) -> Entry:
        """Record what could not be done; the epoch in force stays."""
        return self._append(Step.FAILED, lambda entries: entries[-1].release, author, error)

    def _append(
        self, step: Step, change: Callable[[list[Entry]], Release], author: Author, error: str | None = None
    ) -> Entry:
        while True:
            entries = self.entries()
            if not entries:
                raise ReleaseRefused("there is no release yet: start the graph once")
            release = change(entries)
            self._check(release)
            entry = _entry(entries[-1], step, author, release, error)
            if self._lines.append(entry.number, line_of(entry)):
                return entry


def _entry(before: Entry | None, step: Step, author: Author, release: Release, error: str | None = None) -> Entry:
    epoch = FIRST_EPOCH if before is None else before.epoch + (step is not Step.FAILED)
    return sealed(
        Entry,
        before,
        number=1 if before is None else before.number + 1,
        epoch=epoch,
        at=author.at.astimezone(UTC),
        step=step,
        who=author.who,
        why=author.why,
        release=release,
        error=error,
    )


def split(
    share: float | None, salt: str | None, pins: Mapping[str, VariantName] | None
) -> Callable[[Release], Release]:
    """Return the change that gives the candidate other symbols; what is None stays."""

    def change(release: Release) -> Release:
        asked = {"candidate_share": share, "salt": salt, "pins": pins}
        given = {name: value for name, value in asked.items() if value is not None}
        return release.changed(assignment={**dict(release.assignment), **given})

    return change


def shadowed(on: bool) -> Callable[[Release], Release]:
    """Return the change that lets each variant score what the other answers, or ends that."""

    def change(release: Release) -> Release:
        return release.changed(shadow=on)

    return change


def replaced(candidate: str) -> Callable[[Release], Release]:
    """Return the change that makes another bundle the candidate, which answers nobody yet."""

    def change(release: Release) -> Release:
        for name in VariantName:
            if candidate == getattr(release, name):
                raise ReleaseRefused(f"{candidate} is the {name} already")
        thresholds = {name: kept for name, kept in release.thresholds.items() if name is not VariantName.CANDIDATE}
        return release.quiet().changed(candidate=candidate, shadow=False, thresholds=thresholds)

    return change


def slots(pairs: Iterable[tuple[str, str | None]]) -> dict[str, VariantName]:
    """Return which of the two places for models each bundle lives in, given production and candidate of each epoch.

    Production never moves; a candidate goes where production is not. Places are named by what they held first.
    """
    held: dict[str, VariantName] = {}
    for production, candidate in pairs:
        place = held.setdefault(production, VariantName.PRODUCTION)
        if candidate not in (None, production) and held.get(candidate, place) is place:
            held[candidate] = other_of(place)
    return held


def rethought(variant: VariantName, thresholds: Thresholds | None) -> Callable[[Release], Release]:
    """Return the change that gives a variant thresholds of its own, or those of its bundle again."""

    def change(release: Release) -> Release:
        others = {name: kept for name, kept in release.thresholds.items() if name is not variant}
        return release.changed(thresholds=others if thresholds is None else {**others, variant: thresholds})

    return change


def promoted(release: Release) -> Release:
    """Return the release in which the candidate has become production. Raises ReleaseRefused when there is none."""
    if release.candidate is None:
        raise ReleaseRefused("there is no candidate to promote")
    return _swapped(release)


def _swapped(release: Release) -> Release:
    return release.quiet().changed(
        production=release.candidate,
        candidate=release.production,
        shadow=False,
        thresholds={other_of(name): thresholds for name, thresholds in release.thresholds.items()},
    )


def _rolled_back(entries: list[Entry]) -> Release:
    now = entries[-1].release
    if now.assignment.asks_candidate:
        return now.quiet()
    before = _promotions_in_force(entries)
    if not before:
        raise ReleaseRefused("nothing to roll back: the candidate answers nobody, and no promotion is in force")
    return before[-1].quiet().changed(candidate=now.production, shadow=False)


def _promotions_in_force(entries: list[Entry]) -> list[Release]:
    """Return what was in force before each promotion that no rollback has undone, oldest first."""
    before: list[Release] = []
    for earlier, entry in pairwise(entries):
        if entry.step is Step.PROMOTE:
            before.append(earlier.release)
        elif entry.step is Step.ROLLBACK and entry.release.production != earlier.release.production:
            before.pop()
    return before
