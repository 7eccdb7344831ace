"""The paired comparison on markets where the truth is known."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from serve_app.router.experiments import Comparison, Pairs, compare
from serve_app.router.experiments.paired import BURN_IN
from tests.sizes import size
from tests.unit.router.experiments.simulation import HORIZON, HOUR, SYMBOLS, market, naive_rejects

BARS = 2_000
RUNS = size("simulated experiments")
# What a 5 % test exceeds with a probability of about 0.004, in 400 runs.
MOST_FALSE = 32 * RUNS / 400


def some(pairs: Pairs, which: Any) -> Pairs:
    return Pairs(*(getattr(pairs, column.name)[which] for column in fields(Pairs)))


def rejects(seen: Comparison) -> bool:
    return bool(((seen.low > 0) | (seen.high < 0)).any())


def test_without_a_difference_it_hardly_ever_finds_one_and_a_z_test_nearly_always() -> None:
    markets = [market(seed, BARS, errors=(0.1, 0.1)) for seed in range(RUNS)]
    assert sum(rejects(compare(pairs, HORIZON)) for pairs in markets) <= MOST_FALSE
    assert sum(naive_rejects(pairs) for pairs in markets) > 0.9 * RUNS


def test_a_real_difference_is_found_within_its_horizon() -> None:
    # Production errs by 0.1 on top of what can be known, the candidate does not: 0.01 of the Brier score, 3,000 bars.
    found = [compare(market(seed, 3_000, errors=(0.1, 0.0)), HORIZON).high for seed in range(RUNS)]
    assert sum(bool((high < 0).any()) for high in found) >= 0.8 * RUNS


def test_a_worse_candidate_is_found_on_the_other_side() -> None:
    seen = compare(market(1, 3_000, errors=(0.0, 0.15)), HORIZON)
    assert seen.low[-1] > 0
    assert not (seen.high < 0).any()


def test_twenty_symbols_at_one_bar_are_one_observation() -> None:
    pairs = market(2, BARS, errors=(0.2, 0.1))
    one = np.arange(len(pairs.time)) % SYMBOLS == 0
    alone = some(pairs, one)
    twenty_times = Pairs(*(np.repeat(getattr(alone, column.name), 20) for column in fields(Pairs)))
    first, second = compare(alone, HORIZON), compare(twenty_times, HORIZON)
    assert second.mean == pytest.approx(first.mean)
    assert second.high == pytest.approx(first.high)


def test_the_order_of_the_pairs_is_of_no_account() -> None:
    pairs = market(3, 400, errors=(0.2, 0.1))
    mixed = np.random.default_rng(0).permutation(len(pairs.time))
    other = some(pairs, mixed)
    assert compare(other, HORIZON).low == pytest.approx(compare(pairs, HORIZON).low)


def test_what_comes_later_changes_nothing_that_was_said() -> None:
    long = market(4, BARS, errors=(0.2, 0.1))
    n = 900 * SYMBOLS
    short = some(long, slice(n))
    said, later = compare(short, HORIZON), compare(long, HORIZON)
    assert len(said) > 50
    assert later.low[: len(said)] == pytest.approx(said.low)
    assert later.high[: len(said)] == pytest.approx(said.high)


def test_outcomes_that_take_longer_make_longer_blocks() -> None:
    pairs = market(5, 800, errors=(0.2, 0.1))
    slow = replace(pairs, known=pairs.time + 20 * HOUR)
    usual, seen = compare(pairs, HORIZON), compare(slow, HORIZON)
    # A block must be known when the next but one begins: 20 hours make blocks of 19 bars.
    assert set(np.diff(usual.bars)) == {8}
    assert set(np.diff(seen.bars)) == {19}


def test_it_says_how_many_more_bars_it_would_take() -> None:
    whole = market(6, 4_000, errors=(0.15, 0.0))
    n = 500 * SYMBOLS
    early = compare(some(whole, slice(n)), HORIZON)
    seen = compare(whole, HORIZON)
    needed = seen.bars[np.flatnonzero(seen.high < 0)[0]]
    assert early.more_bars is not None
    assert 0.3 < (early.bars[-1] + early.more_bars) / needed < 3
    assert seen.more_bars is None


@pytest.mark.parametrize("bars", [0, 1, 8, 8 * BURN_IN])
def test_too_little_to_say_anything_is_nothing(bars: int) -> None:
    long, n = market(7, 200, errors=(0.2, 0.1)), bars * SYMBOLS
    seen = compare(some(long, slice(n)), HORIZON)
    assert len(seen) == 0
    assert seen.more_bars is None


def test_models_that_agree_differ_by_nothing() -> None:
    pairs = market(8, 400, errors=(0.1, 0.1))
    seen = compare(replace(pairs, candidate=pairs.production), HORIZON)
    assert seen.mean == pytest.approx(0)
    assert not rejects(seen)


def test_an_outcome_that_looks_at_no_bar_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one bar ahead, not 0"):
        compare(market(9, 10, errors=(0.1, 0.1)), 0)
