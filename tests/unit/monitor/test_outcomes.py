"""Outcomes that overlap count for what they are worth; a loss that has grown is found, and one that has not is left."""

import numpy as np
import pytest

from serve_app.config import AlertName, AlertsConfig
from serve_app.monitor import Judged, effective_size, loss, losses, readings
from serve_app.types import FloatArray, Matured, VariantName
from tests.sizes import size
from tests.unit.monitor.answers import state

START = np.datetime64("2013-01-01", "us")
BLOCKS = 500
"""Of one simulated history."""


def matured(days: list[int], symbols: list[str], errors: list[float] | None = None) -> Matured:
    """Predictions that were so far from a label of 1."""
    probabilities = 1 - np.array(errors if errors is not None else np.full(len(days), 0.5))
    times = START + np.array(days) * np.timedelta64(1, "D")
    return Matured("sha256:0", "v1.0", probabilities, np.ones(len(days)), np.array(symbols), times)


def test_labels_that_do_not_overlap_all_count() -> None:
    apart = matured([0, 1, 2], ["IBM"] * 3)
    assert effective_size(apart, horizon=1) == pytest.approx(3)


def test_labels_that_rest_on_the_same_bars_share_them() -> None:
    """Two labels over three bars each, two of them common: each counts (1 + 1/2 + 1/2) / 3."""
    assert effective_size(matured([0, 1], ["IBM"] * 2), horizon=3) == pytest.approx(2 * 2 / 3)


def test_the_same_bar_twice_is_one_label() -> None:
    assert effective_size(matured([0, 0], ["IBM"] * 2), horizon=4) == pytest.approx(1)


def test_symbols_do_not_share() -> None:
    assert effective_size(matured([0, 0], ["IBM", "AAPL"]), horizon=4) == pytest.approx(2)


def test_many_overlapping_labels_are_worth_about_one_a_horizon() -> None:
    assert effective_size(matured(list(range(100)), ["IBM"] * 100), horizon=5) == pytest.approx(20, abs=2)


def test_bars_that_nobody_dated_are_left_out() -> None:
    known = matured([0, 1], ["IBM"] * 2)
    known.times[1] = np.datetime64("NaT")
    assert effective_size(known, horizon=1) == pytest.approx(1)
    assert len(losses(known, horizon=1)) == 1
    known.times[0] = np.datetime64("NaT")
    assert effective_size(known, horizon=1) == 0
    assert len(losses(known, horizon=1)) == 0


def test_a_block_is_the_mean_loss_of_a_horizon_of_bars_and_an_open_one_is_left_out() -> None:
    known = matured([3, 0, 1, 0, 2, 9], ["A", "A", "A", "B", "A", "A"], [0.4, 0.1, 0.2, 0.3, 0.6, 1.0])
    expected = [(0.1**2 + 0.3**2 + 0.2**2) / 3, (0.6**2 + 0.4**2) / 2]
    assert losses(known, horizon=2).tolist() == pytest.approx(expected)


def test_nothing_is_known_of_no_outcomes() -> None:
    assert loss(np.array([])) is None


def history(rng: np.random.Generator, blocks: int, skill: float) -> FloatArray:
    """Losses of blocks of eight predictions: calibrated ones (skill 1), or turned around (skill -1)."""
    probability = rng.beta(5, 7, (blocks, 8))
    true = 0.5 + skill * (probability - 0.5)
    happened = rng.random((blocks, 8)) < true
    mean: FloatArray = ((probability - happened) ** 2).mean(axis=1)
    return mean


def test_a_model_that_turns_wrong_is_found() -> None:
    rng = np.random.default_rng(1)
    found = loss(np.concatenate([history(rng, BLOCKS, 1), history(rng, 100, -1)]))
    assert found is not None
    assert found.has_grown
    assert found.before is not None
    assert found.before == pytest.approx(0.23, abs=0.02)
    assert found.now > found.before + 0.05


def test_a_model_that_gets_better_is_no_alarm() -> None:
    rng = np.random.default_rng(1)
    found = loss(np.concatenate([history(rng, BLOCKS, -1), history(rng, 200, 1)]))
    assert found is not None
    assert found.before is not None
    assert not found.has_grown


def test_a_loss_that_stays_is_within_the_budget_of_false_alarms() -> None:
    """One block in 10,000; of so many histories, whose lengths are BLOCKS."""
    rng, runs = np.random.default_rng(2), size("histories of losses")
    grown = [found for _ in range(runs) if (found := loss(history(rng, BLOCKS, 1))) and found.has_grown]
    assert len(grown) <= runs * BLOCKS / 10_000


def test_the_alarm_names_both_losses_and_goes_when_the_loss_falls() -> None:
    rng = np.random.default_rng(1)
    worse = np.concatenate([history(rng, BLOCKS, 1), history(rng, 100, -1)])
    better = np.concatenate([worse, history(rng, 300, 1)])
    said = []
    for blocks in (worse, better):
        judged = {VariantName.PRODUCTION: Judged(np.array([]), np.array([]), loss(blocks))}
        (reading,) = [one for one in readings(state(), judged, AlertsConfig()) if one.alert is AlertName.LOSS_INCREASE]
        said.append((reading.breached, reading.message.startswith("the mean Brier loss was 0.")))
    assert said == [(True, True), (False, True)]
