"""Whether an experiment may be believed at all, whatever it shows."""

from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import chi2_contingency

from serve_app.types import VariantName

SUSPICIOUS = 0.001
"""A p-value below this is no accident (Fabijan et al., "Diagnosing Sample Ratio Mismatch", KDD 2019)."""


@dataclass(frozen=True, slots=True)
class Matured:
    """Predictions of one variant whose time has come: those whose outcome is known, and those that have none."""

    known: int
    missing: int


def missing_outcomes(matured: Mapping[VariantName, Matured]) -> float | None:
    """Return the p-value of the variants losing outcomes alike (chi-squared); None when there is nothing to compare.

    What is missing is seldom missing by chance: a variant whose bad outcomes are lost looks good.
    """
    table = [[one.known, one.missing] for one in matured.values()]
    if (
        len(table) < 2
        or any(sum(row) == 0 for row in table)
        or any(sum(column) == 0 for column in zip(*table, strict=True))
    ):
        return None
    return float(chi2_contingency(table, correction=False).pvalue)
