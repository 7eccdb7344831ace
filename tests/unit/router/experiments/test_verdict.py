"""What an experiment comes to."""

from dataclasses import replace

import numpy as np
import pytest

from serve_app.router.experiments import Comparison
from serve_app.router.experiments.verdict import verdict
from serve_app.types import Advice

SEEN = Comparison(
    time=np.array(["2020-01-01T00:00", "2020-01-01T08:00"], dtype="datetime64[us]"),
    bars=np.array([8, 1200]),
    mean=np.array([-0.5, -0.01]),
    low=np.array([-0.9, -0.015]),
    high=np.array([-0.1, 0.004]),
    more_bars=300.2,
)


@pytest.mark.parametrize(
    ("low", "high", "advice", "says"),
    [
        (-0.015, -0.001, Advice.PROMOTE, "it is better"),
        (0.001, 0.02, Advice.REJECT, "it is worse"),
        (-0.0005, 0.002, Advice.KEEP, "better by less than 0.001, if at all"),
        (-0.015, 0.004, Advice.NOT_YET, "about 301 more decide it"),
        (0.0, 0.004, Advice.KEEP, "if at all"),
        (-0.015, 0.0, Advice.NOT_YET, "about 301 more decide it"),
    ],
)
def test_the_latest_interval_decides(low: float, high: float, advice: Advice, says: str) -> None:
    told = verdict(replace(SEEN, low=np.array([-0.9, low]), high=np.array([-0.1, high])))
    assert told.advice is advice
    assert says in told.because
    assert "over 1,200 bars" in told.because
    assert told.more_bars == (301 if advice is Advice.NOT_YET else None)


def test_what_would_take_for_ever_is_said() -> None:
    told = verdict(replace(SEEN, more_bars=None))
    assert (told.advice, told.more_bars) == (Advice.NOT_YET, None)
    assert "no number of bars that anybody would wait for" in told.because


def test_nothing_seen_is_not_yet() -> None:
    assert verdict(Comparison.nothing()).advice is Advice.NOT_YET
