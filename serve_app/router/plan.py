"""The plan of a guarded promotion: step by step more, and what must hold meanwhile.

    shadow ──► pinned symbols ──► shares, one after the other ──► production, still watched ──► done

Where a guardrail trips, the graph goes back by itself.
"""

from pydantic import Field, model_validator

from serve_app.config import AssignmentConfig, Section, Share
from serve_app.types import VariantName


class Guardrails(Section):
    """What must hold of the variant that is watched, from its answers and shadow predictions of one epoch."""

    max_abstain_rate: float = Field(default=0.02, ge=0, le=1)
    max_error_rate: float = Field(default=0.02, ge=0, le=1)
    """Of all that is asked of the graph: an error belongs to no variant."""
    max_p95_ratio: float = Field(default=2.0, gt=0)
    """Of the time in the stages, against production's in the same epoch."""
    min_answers: int = Field(default=100, gt=0)
    """A step with fewer is not over; a latency from fewer means nothing."""


class Plan(Section):
    """Which steps, for how long, and which one it is in."""

    pins: tuple[str, ...] = ()
    """Symbols that the candidate answers first; none: that step is left out."""
    shares: tuple[Share, ...] = Field(default=(0.05, 0.25, 0.5), min_length=1)
    step_s: float = Field(default=600, gt=0)
    """How long each step lasts at least."""
    guardrails: Guardrails = Guardrails()
    wait_for_evidence: bool = False
    """Whether it becomes production only once the verdict is `promote`. A `reject` ends the plan in any case."""
    at: int = Field(default=0, ge=0)
    """Which step it is in."""

    @model_validator(mode="after")
    def _shares_grow(self) -> "Plan":
        if list(self.shares) != sorted(set(self.shares)) or self.shares[0] == 0:
            raise ValueError(f"shares must grow from above 0, not {', '.join(map(str, self.shares))}")
        return self

    def steps(self, salt: str) -> list[AssignmentConfig]:
        """Return what the candidate answers in each step before it is production."""
        pinned = dict.fromkeys(self.pins, VariantName.CANDIDATE)
        first = [AssignmentConfig(salt=salt), *([AssignmentConfig(salt=salt, pins=pinned)] if pinned else [])]
        return first + [AssignmentConfig(salt=salt, candidate_share=share, pins=pinned) for share in self.shares]

    @property
    def promotes_at(self) -> int:
        """The step in which the candidate has become production."""
        return 1 + bool(self.pins) + len(self.shares)

    @property
    def watched(self) -> VariantName:
        """Which variant is the one on trial."""
        return VariantName.CANDIDATE if self.at < self.promotes_at else VariantName.PRODUCTION

    def __str__(self) -> str:
        shares = [f"{share:.0%}" for share in self.shares]
        names = ["shadow", *(["pins"] if self.pins else []), *shares, "production, watched"]
        return f"{names[self.at]}, step {self.at + 1} of {len(names)}"
