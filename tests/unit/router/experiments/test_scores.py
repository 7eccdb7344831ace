"""Scores of one variant, and whether an experiment may be believed."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.router.experiments.integrity import SUSPICIOUS, Matured, missing_outcomes
from serve_app.router.experiments.scores import calibration, scores
from serve_app.types import VariantName

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


def test_scores_by_hand() -> None:
    seen = scores(np.array([0.9, 0.8, 0.3, 0.2]), np.array([True, False, True, False]), 0.8)
    assert (seen.n, seen.base_rate, seen.signals, seen.hit_rate) == (4, 0.5, 2, 0.5)
    assert seen.brier == pytest.approx((0.01 + 0.64 + 0.49 + 0.04) / 4)
    assert seen.log_loss == pytest.approx(-np.log([0.9, 0.2, 0.3, 0.8]).mean())
    assert seen.average_precision == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert seen.calibration_error == pytest.approx((0.1 + 0.8 + 0.7 + 0.2) / 4)


def test_a_forecaster_that_says_the_base_rate_is_calibrated_and_knows_nothing() -> None:
    outcome = np.arange(1000) % 4 == 0
    seen = scores(np.full(1000, 0.25), outcome, 0.7)
    assert seen.calibration_error == pytest.approx(0, abs=1e-9)
    assert seen.average_precision == pytest.approx(0.25)
    assert (seen.signals, seen.hit_rate) == (0, None)


@pytest.mark.parametrize("outcome", [True, False])
def test_one_kind_of_outcome_has_no_precision_and_a_certain_error_a_finite_loss(outcome: bool) -> None:
    seen = scores(np.array([0.0, 1.0]), np.array([outcome, outcome]), 0.5)
    assert seen.average_precision is None
    assert seen.brier == pytest.approx(0.5)
    assert seen.log_loss is not None
    assert np.isfinite(seen.log_loss)


def test_nothing_has_no_scores() -> None:
    seen = scores(np.empty(0), np.empty(0, dtype=bool), 0.5)
    assert (seen.n, seen.signals) == (0, 0)
    assert {seen.base_rate, seen.brier, seen.log_loss, seen.calibration_error, seen.hit_rate} == {None}
    assert calibration(np.empty(0), np.empty(0, dtype=bool)) == []


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_every_prediction_is_in_one_bin_and_bins_ascend(pairs: list[tuple[float, bool]]) -> None:
    probability, outcome = np.array([p for p, _ in pairs]), np.array([y for _, y in pairs])
    curve = calibration(probability, outcome)
    assert sum(one.n for one in curve) == len(pairs)
    assert max(one.n for one in curve) - min(one.n for one in curve) <= 1
    predicted = [one.predicted for one in curve]
    assert predicted == sorted(predicted)
    assert sum(one.n * one.happened for one in curve) == pytest.approx(outcome.sum())


def test_outcomes_that_one_variant_loses_are_suspicious_and_equal_losses_are_not() -> None:
    alike = missing_outcomes({PRODUCTION: Matured(9_000, 100), CANDIDATE: Matured(900, 10)})
    assert alike == pytest.approx(1.0)
    skewed = missing_outcomes({PRODUCTION: Matured(9_000, 100), CANDIDATE: Matured(870, 40)})
    assert skewed is not None
    assert skewed < SUSPICIOUS


def test_one_variant_or_nothing_missing_is_nothing_to_compare() -> None:
    for matured in (
        {PRODUCTION: Matured(10, 1)},
        {PRODUCTION: Matured(10, 0), CANDIDATE: Matured(10, 0)},
        {PRODUCTION: Matured(10, 1), CANDIDATE: Matured(0, 0)},
    ):
        assert missing_outcomes(matured) is None
