"""What an examination says."""

from dataclasses import dataclass
from enum import StrEnum

FAR = 5.0
"""Deviations from the training mean beyond which a value is far from what the model knows."""


class Verdict(StrEnum):
    """Of one check."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, what was found, and what to do about it unless it is ok."""

    name: str
    verdict: Verdict
    finding: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class FeatureSummary:
    """One feature over all rows of the windows looked at, unscaled and scaled, next to the training reference."""

    feature: str
    mean: float
    std: float
    minimum: float
    maximum: float
    training_mean: float
    training_scale: float
    scaled_mean: float
    scaled_std: float
    far_share: float
    """Share of rows more than FAR training deviations from the training mean, or not a number."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All checks, in the order in which their causes lead to each other."""

    bundle: str
    digest: str | None
    checks: tuple[Check, ...]
    features: tuple[FeatureSummary, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        found = {check.verdict for check in self.checks}
        return next(verdict for verdict in reversed(Verdict) if verdict in found)
