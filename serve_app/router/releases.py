"""Releases: what is in force in each epoch, and how one follows from another. Every change is a line of the ledger.

    seed ──► split, shadow ──► promote ──► candidate, split, … ──► rollback

* **Another candidate** answers nobody yet, whatever the one before it answered.
* **Promotion** lets the candidate become production, and production the candidate, which answers nobody: it stays
  loaded, so that going back is at once.
* **A guarded promotion** goes through its steps by itself, and back by itself; see `plan`. Any change by hand ends it.
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

from serve_app.chain import Link, read_chain, sealed
from serve_app.config import AssignmentConfig, Section, Share
from serve_app.errors import ReleaseRefused
from serve_app.router.assignment import FIRST_EPOCH, Assignment
from serve_app.router.plan import Plan
from serve_app.types import Thresholds, VariantName

WHERE = "the release ledger"


class Step(StrEnum):
    """How a release came to be."""

    SEED = "seed"
    SPLIT = "split"
    SHADOW = "shadow"
    THRESHOLDS = "thresholds"
    CANDIDATE = "candidate"
    """Another candidate, which answers nobody yet."""
    GUARD = "guard"
    """The first step of a guarded promotion."""
    ADVANCE = "advance"
    """Another step of it."""
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
    shadow_share: Share = 1.0
    """Of the decisions: how many it scores, drawn by their ids."""
    thresholds: Mapping[VariantName, Thresholds] = Field(default_factory=dict)
    """In place of those of the bundle."""

    plan: Plan | None = None
    """Of a guarded promotion that is under way."""

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
        return first if self._lines.append(first.number, first.line) else self.entries()[-1]

    def change(
        self,
        step: Step,
        change: Callable[[Release], Release],
        author: Author,
        *,
        follows: int | None = None,
        by_plan: bool = False,
    ) -> Entry:
        """Put into force what `change` makes of what is. Raises ReleaseRefused, and has then recorded nothing.

        `follows` is the epoch that must be in force. A change that is not `by_plan` ends a guarded promotion.
        """

        def changed(entries: list[Entry]) -> Release:
            release = change(entries[-1].release)
            return release if by_plan else release.changed(plan=None)

        return self._append(step, changed, author, follows=follows)

    def rollback(self, author: Author, *, follows: int | None = None) -> Entry:
        """See the module. Raises ReleaseRefused when there is nothing to go back to. `follows`: see `change`."""
        return self._append(Step.ROLLBACK, _rolled_back, author, follows=follows)

    def fail(self, error: str, author: Author) -> Entry:
        """Record what could not be done; the epoch in force stays."""
        return self._append(Step.FAILED, lambda entries: entries[-1].release, author, error)

    def _append(
        self,
        step: Step,
        change: Callable[[list[Entry]], Release],
        author: Author,
        error: str | None = None,
        follows: int | None = None,
    ) -> Entry:
        while True:
            entries = self.entries()
            if not entries:
                raise ReleaseRefused("there is no release yet: start the graph once")
            if follows not in (None, entries[-1].epoch):
                raise ReleaseRefused(f"epoch {follows} is not in force any more")
            release = change(entries)
            self._check(release)
            entry = _entry(entries[-1], step, author, release, error)
            if self._lines.append(entry.number, entry.line):
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


def _rolled_back(entries: list[Entry]) -> Release:
    now = entries[-1].release
    if now.plan is not None and now.plan.watched is VariantName.CANDIDATE:
        return now.quiet().changed(plan=None, shadow=False)
    if now.assignment.asks_candidate:
        return now.quiet()
    before = _promotions_in_force(entries)
    if not before:
        raise ReleaseRefused("nothing to roll back: the candidate answers nobody, and no promotion is in force")
    return before[-1].quiet().changed(candidate=now.production, shadow=False, plan=None)


def _promotions_in_force(entries: list[Entry]) -> list[Release]:
    """Return what was in force before each promotion that no rollback has undone, oldest first."""
    before: list[Release] = []
    for earlier, entry in pairwise(entries):
        if entry.step is Step.PROMOTE:
            before.append(earlier.release)
        elif entry.step is Step.ROLLBACK and entry.release.production != earlier.release.production:
            before.pop()
    return before
