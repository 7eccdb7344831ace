"""Outcomes from later bars: each decision is labelled by the definition of the bundle that made it."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from functools import cache

import numpy as np

from serve_app.errors import BundleError
from serve_app.journal.outcomes import Open, Outcomes
from serve_app.model import Bundle, LabelDefinition
from serve_app.training.labels import label
from serve_app.types import Bars

_AT_ONCE = 1_000


class Labelled(StrEnum):
    """What became of a decision that had no outcome."""

    LABELLED = "labelled"
    CENSORED = "censored"
    """Its horizon is over, and a price is missing that it needs."""
    OPEN = "open"
    """Its horizon is not over."""
    ABSENT = "not in the data"
    UNKNOWN = "of bundles that are not here"


def label_decisions(
    outcomes: Outcomes, bars: Mapping[str, Bars], bundle_of: Callable[[str], Bundle], now: datetime
) -> dict[str, Labelled]:
    """Report the outcome of every decision that has none and that the bars can tell; return what became of each.

    `bundle_of` finds a bundle by digest, or raises BundleError. Raises JournalUnavailable.
    """
    judge = _Judge(bars, bundle_of)
    found = {one.decision_id: judge(one) for one in outcomes.without()}
    known = [(i, label) for i, (became, label) in found.items() if became in (Labelled.LABELLED, Labelled.CENSORED)]
    for begin in range(0, len(known), _AT_ONCE):
        outcomes.report(dict(known[begin : begin + _AT_ONCE]), now)
    return {i: became for i, (became, _) in found.items()}


class _Judge:
    """Labels decisions, each series of bars once for each definition."""

    def __init__(self, bars: Mapping[str, Bars], bundle_of: Callable[[str], Bundle]) -> None:
        self._bars = bars
        self._bundle_of = bundle_of
        self._definition = cache(self._definition_of)
        self._labels = cache(lambda symbol, definition: label(self._bars[symbol], definition))

    def __call__(self, one: Open) -> tuple[Labelled, int | None]:
        """Return what becomes of a decision, and its label if that is known."""
        definition, at = self._definition(one.bundle_digest), _place(self._bars.get(one.symbol), one)
        if definition is None:
            return Labelled.UNKNOWN, None
        if at is None:
            return Labelled.ABSENT, None
        if at + definition.horizon_bars >= len(self._bars[one.symbol]):
            return Labelled.OPEN, None
        value = self._labels(one.symbol, definition)[at]
        return (Labelled.CENSORED, None) if np.isnan(value) else (Labelled.LABELLED, int(value))

    def _definition_of(self, digest: str) -> LabelDefinition | None:
        try:
            return self._bundle_of(digest).config.label
        except BundleError:
            return None


def _place(bars: Bars | None, one: Open) -> int | None:
    """Return which of the bars a decision was made at; None when it is not among them."""
    if bars is None:
        return None
    at = int(np.searchsorted(bars.timestamp, one.time))
    return at if at < len(bars) and bars.timestamp[at] == one.time else None
