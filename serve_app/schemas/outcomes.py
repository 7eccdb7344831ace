"""Bodies of the calls that report what came of decisions."""

from typing import Literal

from pydantic import Field

from serve_app.config import Section
from serve_app.schemas.bodies import ErrorBody


class OutcomeBody(Section):
    """What came of one decision, by the label that its bundle defines."""

    decision_id: str = Field(min_length=1)
    label: Literal[0, 1] | None
    """null: censored, as nobody will ever know (trading was halted, prices are missing)."""


class OutcomesBody(Section):
    """What came of many."""

    outcomes: list[OutcomeBody] = Field(min_length=1, max_length=1000)


class OutcomeAnswer(Section):
    """What became of the report: `recorded`, or `repeated` when the same was recorded before."""

    decision_id: str
    report: str


class OutcomesAnswer(Section):
    """The same for each, or an error, in their order."""

    results: list[OutcomeAnswer | ErrorBody]
