"""How often each rule alarms by accident: what the README says, by simulation of the rules themselves.

A budget is a share of windows that do not overlap, of a service that is as well as its row says.
"""

from collections.abc import Callable

import numpy as np
import pytest

from serve_app.config import RULES, AlertName, Rule
from serve_app.monitor.rules import accuracy, p95, share, shift
from tests.sizes import size

Window = Callable[[np.random.Generator, Rule], bool]
"""Draws one window of a service, and says whether the rule is breached."""


def right(of: float) -> Window:
    def breached(rng: np.random.Generator, rule: Rule) -> bool:
        said = rng.random(rule.window)
        labels = np.where(rng.random(rule.window) < of, said >= 0.5, said < 0.5).astype(float)
        found = accuracy(said, labels, rule.window)
        return found is not None and found < rule.limit

    return breached


def stays(rng: np.random.Generator, rule: Rule) -> bool:
    """Predictions spread over all of 0 to 1, which wanders most."""
    found = shift(rng.random(2 * rule.window).tolist(), rule.window)
    return found is not None and found > rule.limit


def happens(of: float) -> Window:
    def breached(rng: np.random.Generator, rule: Rule) -> bool:
        found = share((rng.random(rule.window) < of).tolist(), rule.window)
        return found is not None and found > rule.limit

    return breached


def slow(of: float) -> Window:
    def breached(rng: np.random.Generator, rule: Rule) -> bool:
        took = np.where(rng.random(rule.window) < of, rule.limit + 50, rule.limit / 2)
        found = p95(took.tolist(), rule.window)
        return found is not None and found > rule.limit

    return breached


@pytest.mark.parametrize(
    ("name", "service", "budget"),
    [
        (AlertName.ROLLING_ACCURACY, right(0.60), 0.15),
        (AlertName.ROLLING_ACCURACY, right(0.70), 0.002),
        (AlertName.PREDICTION_SHIFT, stays, 0.0),
        (AlertName.INFERENCE_LATENCY, slow(0.02), 0.03),
        (AlertName.INFERENCE_LATENCY, slow(0.01), 0.005),
        (AlertName.ERROR_RATE, happens(0.01), 0.001),
        (AlertName.ABSTENTION_RATE, happens(0.01), 0.001),
    ],
)
def test_a_rule_keeps_within_its_budget(name: AlertName, service: Window, budget: float) -> None:
    rng, windows = np.random.default_rng(3), size("windows of a budget")
    alarms = sum(service(rng, RULES[name]) for _ in range(windows))
    expected = budget * windows
    assert alarms <= expected + 3 * np.sqrt(expected)


def test_a_rule_that_is_too_eager_would_be_seen() -> None:
    """The check above can fail: a model that is right 55 % of the time breaches its limit in half of all windows."""
    rng, windows = np.random.default_rng(3), size("windows of a budget")
    alarms = sum(right(0.55)(rng, RULES[AlertName.ROLLING_ACCURACY]) for _ in range(windows))
    assert alarms > 0.35 * windows
