import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.errors import ConfigError
from serve_app.training.splits import Cuts, default_cuts, split_by_time

DAYS = np.datetime64("2020-01-01", "us") + np.arange(100) * np.timedelta64(1, "D")


@given(
    kept=st.lists(st.booleans(), min_size=100, max_size=100),
    first=st.integers(1, 50),
    second=st.integers(51, 98),
    embargo=st.integers(1, 20),
)
def test_no_label_reaches_into_the_next_period(kept: list[bool], first: int, second: int, embargo: int) -> None:
    timestamps, cuts = DAYS[np.array(kept)], Cuts(DAYS[first], DAYS[second])
    split = split_by_time(timestamps, cuts, embargo)
    for mask, end in ((split.train, cuts.train_end), (split.validation, cuts.validation_end)):
        assert all(timestamps[t + embargo] <= end for t in np.flatnonzero(mask))
    assert (timestamps[split.validation] > cuts.train_end).all()
    assert (timestamps[split.test] > cuts.validation_end).all()
    assert ((split.train.astype(int) + split.validation + split.test) <= 1).all()


def test_exactly_the_embargoed_bars_belong_to_no_period() -> None:
    split = split_by_time(DAYS, Cuts(DAYS[69], DAYS[84]), embargo=8)
    assert np.flatnonzero(~(split.train | split.validation | split.test)).tolist() == [*range(62, 70), *range(77, 85)]


def test_default_cuts_leave_70_15_15_percent_of_the_distinct_times_of_all_symbols() -> None:
    cuts = default_cuts([DAYS[::2], DAYS[1::2], DAYS[50:]])
    assert (cuts.train_end, cuts.validation_end) == (DAYS[69], DAYS[84])


def test_a_symbol_that_starts_later_meets_the_same_dates() -> None:
    cuts = Cuts(DAYS[69], DAYS[84])
    late, full = split_by_time(DAYS[60:], cuts, 8), split_by_time(DAYS, cuts, 8)
    np.testing.assert_array_equal(late.validation, full.validation[60:])
    assert not split_by_time(DAYS[90:], cuts, 8).train.any()


def test_a_history_shorter_than_the_embargo_trains_nothing() -> None:
    split = split_by_time(DAYS[:5], Cuts(DAYS[69], DAYS[84]), embargo=8)
    assert not (split.train | split.validation | split.test).any()


def test_cuts_out_of_order_and_too_little_data_are_refused() -> None:
    with pytest.raises(ConfigError, match="must lie before"):
        Cuts(DAYS[5], DAYS[5])
    with pytest.raises(ConfigError, match="9 distinct timestamps"):
        default_cuts([DAYS[:9]])
