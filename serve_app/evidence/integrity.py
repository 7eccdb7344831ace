"""Whether what was answered may be believed at all."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pandas as pd

from serve_app.router.experiments import SUSPICIOUS, Matured, missing_outcomes
from serve_app.router.releases import Entry
from serve_app.types import VariantName


@dataclass(frozen=True, slots=True)
class Integrity:
    """What was checked."""

    assignment_mismatches: int
    """Decisions of a variant or a bundle that the ledger did not assign to their symbol in their epoch."""
    missing_outcomes_p: float | None
    """Of both variants missing outcomes alike (chi-squared); None when there is nothing to compare."""

    def doubts(self) -> list[str]:
        """Return why the experiment is not to be believed, one reason a line."""
        found = []
        if self.assignment_mismatches:
            found.append(f"{self.assignment_mismatches:,} decisions are not of the variant that the ledger assigned")
        if self.missing_outcomes_p is not None and self.missing_outcomes_p < SUSPICIOUS:
            found.append(f"the variants do not miss outcomes alike (p = {self.missing_outcomes_p:.2g}): find out why")
        return found


def check(answers: pd.DataFrame, entries: Iterable[Entry], matured: Mapping[VariantName, Matured]) -> Integrity:
    """Hold answers against the ledger, and the variants against each other."""
    releases = {entry.epoch: entry.release for entry in entries}
    assigned = {epoch: release.assigned() for epoch, release in releases.items()}

    def is_right(epoch: int, symbol: str, variant: str, digest: str) -> bool:
        right = assigned[epoch].variant(symbol)
        return (variant, digest) == (right, releases[epoch].digests().get(right))

    columns = [answers[name].tolist() for name in ("epoch", "symbol", "variant", "bundle_digest")]
    groups = Counter(zip(*columns, strict=True))
    mismatches = sum(n for group, n in groups.items() if not is_right(*group))
    return Integrity(mismatches, missing_outcomes(matured))
