import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from serve_app.monitor.statistics import ks, outside, psi, ranks, repeated

LEVELS = np.linspace(0, 1, 101)


def quantiles_of(values: np.ndarray, rows: int) -> np.ndarray:
    return np.broadcast_to(np.quantile(values, LEVELS, axis=0).T, (rows, values.shape[1], 101))


@given(st.integers(0, 1000))
def test_ranks_of_what_training_saw_are_uniform_whatever_its_distribution(seed: int) -> None:
    rng = np.random.default_rng(seed)
    trained = np.column_stack([rng.lognormal(3, 2, 5000), rng.integers(0, 3, 5000), np.full(5000, 0.5)])
    drawn = ranks(trained[:2000], quantiles_of(trained, 2000), rng)
    assert ((drawn >= 0) & (drawn <= 1)).all()
    for column in drawn.T:
        assert stats.kstest(column, "uniform").pvalue > 1e-6


def test_ranks_beyond_training_are_those_of_its_ends() -> None:
    trained = np.arange(101.0)[:, None]
    values = np.array([[-1.0], [101.0], [np.nan]])
    drawn = ranks(values, quantiles_of(trained, 3), np.random.default_rng(0))
    assert drawn[:2, 0].tolist() == [0.0, 1.0]
    assert np.isnan(drawn[2, 0])
    edge = np.array([[0.0], [100.0], [-0.1], [100.1]])
    assert outside(edge, quantiles_of(trained, 4))[:, 0].tolist() == [False, False, True, True]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=60))
def test_the_distance_is_that_of_scipy(values: list[float]) -> None:
    drawn = np.array(values)[:, None]
    assert ks(drawn)[0] == pytest.approx(stats.kstest(drawn[:, 0], "uniform").statistic)


def test_the_stability_index_is_nothing_for_even_bins_and_large_for_one_bin() -> None:
    even = np.linspace(0.05, 0.95, 10)[:, None]
    assert psi(np.tile(even, (10, 1)))[0] == pytest.approx(0)
    assert psi(np.full((100, 1), 0.55))[0] > 2
    by_hand = (0.2 - 0.1) * np.log(2) + (0.0 + 1e-4 - 0.1) * np.log(1e-3)
    moved = np.tile(even, (10, 1))
    moved[moved == even[0]] = even[1, 0]
    assert psi(moved)[0] == pytest.approx(by_hand)


def test_repeats_are_counted_within_a_symbol_and_not_of_a_bar_that_is_asked_about_again() -> None:
    values = np.array([[1.0, 5.0], [9.0, 7.0], [2.0, 5.0], [2.0, 5.0], [9.0, 8.0]])
    share, pairs = repeated(values, np.array(["IBM", "MSFT", "IBM", "IBM", "MSFT"]))
    assert pairs == 2
    assert share.tolist() == [0.5, 0.5]
    assert repeated(values[:1], np.array(["IBM"]))[1] == 0
