"""The experiments of a ledger: each pair of bundles that were production and candidate, and what is known of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Engine

from serve_app.errors import UnknownExperiment
from serve_app.model import Bundle
from serve_app.router.releases import Entry, Ledger, Release


@dataclass(frozen=True, slots=True)
class Experiment:
    """One pair of bundles, and the epochs in which they were production and candidate."""

    name: str
    production: str
    candidate: str
    epochs: tuple[int, ...]
    since: datetime

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {**asdict(self), "epochs": list(self.epochs), "since": self.since.isoformat()}


def experiments_of(entries: Iterable[Entry], names: Mapping[str, str]) -> dict[str, Experiment]:
    """Return the experiments of a ledger by name, oldest first; `names` are the versions of digests."""
    pairs: dict[tuple[str, str], dict[int, datetime]] = {}
    for entry in entries:
        if entry.release.candidate is not None:
            epochs = pairs.setdefault((entry.release.production, entry.release.candidate), {})
            epochs.setdefault(entry.epoch, entry.at)
    found = {}
    for pair, epochs in pairs.items():
        # A digest whose version is gone is named by itself; nothing says that two digests never had one version.
        production, candidate = (names.get(digest, digest.removeprefix("sha256:")[:12]) for digest in pair)
        name = f"{production}-vs-{candidate}"
        found[name] = Experiment(name, *pair, tuple(epochs), min(epochs.values()))
    return found


class Experiments:
    """What is known of each experiment. Everything here reads the database, and takes its time."""

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        names: Callable[[], Mapping[str, str]],
        bundle_of: Callable[[str], Bundle],
    ) -> None:
        """`names` returns the version of each digest; `bundle_of` finds a bundle by digest, or raises ServeAppError."""
        self._engine = engine
        self._ledger = ledger
        self._names = names
        self._bundle_of = bundle_of

    def list(self) -> "list[dict[str, Any]]":
        """Return every experiment, oldest first. Raises JournalUnavailable."""
        return [one.document() for one in experiments_of(self._ledger.entries(), self._names()).values()]

    def report(self, name: str) -> dict[str, Any]:
        """Return the evidence of one experiment.

        Raises UnknownExperiment, BundleNotLoaded, EvidenceRefused or JournalUnavailable.
        """
        entries = self._ledger.entries()
        known = experiments_of(entries, self._names())
        if name not in known:
            raise UnknownExperiment(f"there is no experiment {name}; there are {', '.join(known) or 'none yet'}")
        return self._report(known[name], entries)

    def report_of(self, release: Release) -> dict[str, Any]:
        """Return the evidence of the experiment that a release of the ledger, with a candidate, belongs to.

        Raises as `report`.
        """
        entries = self._ledger.entries()
        known = experiments_of(entries, self._names()).values()
        pair = (release.production, release.candidate)
        return self._report(next(one for one in known if (one.production, one.candidate) == pair), entries)

    def _report(self, experiment: Experiment, entries: Sequence[Entry]) -> dict[str, Any]:
        from serve_app.evidence.report import report  # noqa: PLC0415  heavy, and of no use to a router that serves

        production, candidate = (self._bundle_of(digest) for digest in (experiment.production, experiment.candidate))
        return {
            "experiment": experiment.document(),
            **report(self._engine, experiment.epochs, entries, production, candidate),
        }
