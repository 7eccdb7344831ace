import numpy as np
import pytest

from serve_app.training.metrics import SCORE_NOISE, choose_threshold, evaluate
from serve_app.types import FloatArray


def scored(n: int, seed: int) -> tuple[FloatArray, FloatArray]:
    """Labels drawn with the probabilities they are scored with."""
    rng = np.random.default_rng(seed)
    probabilities = rng.beta(2, 3, n)
    return (rng.random(n) < probabilities).astype(float), probabilities


def test_metrics_of_a_hand_counted_example() -> None:
    metrics = evaluate(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0.9, 0.8, 0.4, 0.1]), threshold=0.8)
    assert metrics == pytest.approx(
        {
            "n": 4,
            "base_rate": 0.5,
            "roc_auc": 0.75,
            "average_precision": (1 + 2 / 3) / 2,
            "brier": (0.01 + 0.64 + 0.36 + 0.01) / 4,
            "brier_base_rate": 0.25,
            "n_signals": 2,
            "precision": 0.5,
            "recall": 0.5,
        }
    )


def test_what_is_undefined_is_none_and_never_a_number() -> None:
    one_class = evaluate(np.zeros(3), np.array([0.1, 0.2, 0.3]), threshold=0.5)
    assert [name for name, value in one_class.items() if value is None] == [
        "roc_auc",
        "average_precision",
        "precision",
        "recall",
    ]
    empty = evaluate(np.empty(0), np.empty(0), threshold=0.5)
    assert {name for name, value in empty.items() if value is not None} == {"n", "n_signals"}


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_highest_precision_of_all_that_let_enough_through(seed: int) -> None:
    labels, probabilities = scored(400, seed)
    chosen = choose_threshold(labels, probabilities, min_coverage=0.05)
    candidates = [s for s in probabilities if (probabilities >= s).mean() >= 0.05]
    best = max(labels[probabilities >= candidate].mean() for candidate in candidates)
    signals = probabilities >= chosen
    assert signals.mean() >= 0.05
    assert labels[signals].mean() == pytest.approx(best, abs=1 / signals.sum())
    assert np.abs(probabilities - chosen).min() > SCORE_NOISE / 2


def test_of_equally_precise_thresholds_the_lowest_is_chosen() -> None:
    labels, probabilities = np.array([1.0, 1.0, 1.0, 0.0, 0.0]), np.array([0.9, 0.8, 0.7, 0.5, 0.1])
    assert choose_threshold(labels, probabilities) == pytest.approx(0.6)


def test_a_threshold_never_separates_scores_within_float_noise() -> None:
    labels, probabilities = np.array([1.0, 0.0, 0.0]), np.array([0.6 + SCORE_NOISE / 4, 0.6, 0.2])
    assert choose_threshold(labels, probabilities) == pytest.approx(0.4)


def test_scores_all_alike_leave_the_threshold_below_them() -> None:
    assert choose_threshold(np.array([1.0, 0.0]), np.array([0.4, 0.4])) == pytest.approx(0.2)
