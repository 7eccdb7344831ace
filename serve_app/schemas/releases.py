"""Bodies of the calls that change releases, or ask what a change would do."""

from pydantic import Field

from serve_app.config import Section, Share
from serve_app.model.repository import VERSION
from serve_app.router.plan import Plan
from serve_app.types import Thresholds, VariantName


class SplitBody(Section):
    """Which symbols the candidate shall answer; what is not given stays."""

    candidate_share: Share | None = None
    salt: str | None = None
    pins: dict[str, VariantName] | None = None
    """All pins there shall be."""


class PreviewBody(SplitBody):
    """A split that is only asked about."""

    symbols: list[str] | None = None
    """Of which to say whether they would move; by default all that production knows."""


class ChangeBody(Section):
    """Who changes a release, and why."""

    who: str = Field(min_length=1)
    why: str = Field(min_length=1)
    follows: int | None = None
    """The epoch that they have seen, and that must still be in force; null changes whatever is."""


class SplitChangeBody(SplitBody, ChangeBody):
    """See both."""


class PromoteBody(ChangeBody):
    """Make the candidate production: at once, or step by step by a plan."""

    plan: Plan | None = None
    """Of a guarded promotion; null promotes at once."""


class CandidateBody(ChangeBody):
    """Which version beside those that the graph was started with shall be the candidate."""

    version: str = Field(pattern=f"^{VERSION.pattern}$")


class ShadowBody(ChangeBody):
    """Whether each variant shall also score what the other answers, off the request path."""

    shadow: bool
    share: Share = 1.0
    """Of the decisions, drawn by their ids."""


class ThresholdsBody(ChangeBody):
    """Thresholds of a variant in place of its bundle's; null gives it those of its bundle again."""

    variant: VariantName
    thresholds: Thresholds | None
