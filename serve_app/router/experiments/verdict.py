"""What an experiment comes to."""

import math
from dataclasses import dataclass

from serve_app.router.experiments.paired import Comparison
from serve_app.types import Advice

WORTHWHILE = 0.001
"""Of the Brier score: a candidate that cannot be better by as much is not worth a change."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The advice, in a sentence, and about how many more bars it takes where there is none yet."""

    advice: Advice
    because: str
    more_bars: int | None = None


def verdict(seen: Comparison, worthwhile: float = WORTHWHILE) -> Verdict:
    """Judge by the latest interval. It holds whenever one looks, so one may look after every bar and stop."""
    if not len(seen):
        return Verdict(Advice.NOT_YET, "no bar has counted yet: the first ones only say how far the models lie apart")
    mean, low, high, bars = seen.mean[-1], seen.low[-1], seen.high[-1], seen.bars[-1]
    found = f"the candidate's Brier score differs by {mean:+.5f} ({low:+.5f} to {high:+.5f}) over {bars:,} bars"
    if high < 0:
        return Verdict(Advice.PROMOTE, f"{found}: it is better")
    if low > 0:
        return Verdict(Advice.REJECT, f"{found}: it is worse")
    if low > -worthwhile:
        return Verdict(Advice.KEEP, f"{found}: it is better by less than {worthwhile:g}, if at all")
    more = None if seen.more_bars is None else math.ceil(seen.more_bars)
    wait = (
        "no number of bars that anybody would wait for decides it" if more is None else f"about {more:,} more decide it"
    )
    return Verdict(Advice.NOT_YET, f"{found}; if it goes on like this, {wait}", more)
