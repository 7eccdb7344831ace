import numpy as np
import pytest

from serve_app.model.gate import ALLOWED, Allowance, Comparison, distance_to_threshold
from serve_app.types import Precision, Thresholds

THRESHOLDS = Thresholds(signal_threshold=0.5, exit_threshold=0.2)
LOOSE = Allowance(logit=1, probability=0.01)


def compared(*pairs: tuple[float, float], thresholds: Thresholds = THRESHOLDS) -> Comparison:
    before, after = np.array(pairs, dtype=np.float64).T
    return Comparison([f"window {i}" for i in range(len(pairs))], before, after, thresholds)


@pytest.mark.parametrize(
    ("pair", "flips"),
    [
        ((0.499, 0.5), True),  # BUY from the threshold on, inclusive
        ((0.5, 0.499), True),
        ((0.5, 0.7), False),
        ((0.2, 0.201), True),  # SELL down from the exit threshold, inclusive
        ((0.199, 0.2), False),
        ((0.201, 0.2), True),
        ((0.3, 0.4), False),
    ],
)
def test_an_action_changes_where_a_threshold_is_crossed(pair: tuple[float, float], flips: bool) -> None:
    assert compared(pair).flips().tolist() == [flips]


def test_without_an_exit_threshold_only_entries_can_change() -> None:
    assert not compared((0.2, 0.21), thresholds=Thresholds(signal_threshold=0.5)).flips().any()
    np.testing.assert_allclose(distance_to_threshold(np.array([0.2, 0.6]), Thresholds(0.5)), [0.3, 0.1])
    np.testing.assert_allclose(distance_to_threshold(np.array([0.2, 0.6]), THRESHOLDS), [0.0, 0.1])


def test_a_change_within_the_margin_passes_and_is_seen() -> None:
    comparison = compared((0.495, 0.503), (0.8, 0.8))
    assert comparison.refusal(LOOSE) is None
    assert comparison.flips().sum() == 1


def test_a_change_outside_the_margin_is_refused_by_name() -> None:
    refusal = compared((0.8, 0.8), (0.48, 0.53)).refusal(LOOSE)
    assert refusal is not None
    assert "window 1: 0.480000 before, 0.530000 exported, another action" in refusal
    assert "of 2 windows 1 probabilities are off by more than 0.01 and 1 actions change" in refusal


def test_a_difference_at_the_bound_passes_and_one_above_it_does_not() -> None:
    exact = Allowance(logit=1, probability=0.25)
    assert compared((0.75, 1.0)).refusal(exact) is None
    refusal = compared((0.75, np.nextafter(1.0, 2))).refusal(exact)
    assert refusal is not None
    assert "another action" not in refusal


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_never_passes(value: float) -> None:
    refusal = compared((0.3, value)).refusal(Allowance(logit=1, probability=1))
    assert refusal is not None
    assert "window 0" in refusal


def test_the_worst_cases_come_first_and_five_are_named() -> None:
    refusal = compared(*((0.3, 0.3 + i / 100) for i in range(2, 10))).refusal(LOOSE)
    assert refusal is not None
    assert refusal.index("window 7") < refusal.index("window 6") < refusal.index("window 3")
    assert "window 2:" not in refusal


def test_fewer_bits_are_allowed_more_and_fp32_nothing_that_golden_cases_would_not_allow() -> None:
    bounds = [ALLOWED[precision].probability for precision in (Precision.FP32, Precision.FP16, Precision.BF16)]
    assert bounds == sorted(set(bounds))
    assert ALLOWED[Precision.FP32] == Allowance(logit=1e-4, probability=1e-5)
