import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.batches import RowBatch
from serve_app.preprocess import TECH23, Preprocess, Scaler, fill_forward
from serve_app.types import Bars
from tests.factories import LOOKBACK, NEEDED, NEUTRAL, features_of

NAN = np.nan


def test_gaps_are_filled_with_the_last_value_before_them_and_never_from_a_later_one() -> None:
    window = np.array([[[NAN, 1.0], [2.0, NAN], [NAN, NAN], [4.0, 5.0]]])
    np.testing.assert_array_equal(fill_forward(window), [[[NAN, 1.0], [2.0, 1.0], [2.0, 1.0], [4.0, 5.0]]])


def test_gaps_of_one_window_are_not_filled_from_another() -> None:
    windows = np.array([[[1.0], [2.0]], [[NAN], [3.0]]])
    np.testing.assert_array_equal(fill_forward(windows), windows)


@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0, 1))
def test_filling_forward_is_what_one_row_after_the_other_would_do(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    windows = rng.normal(size=(3, 6, 2))
    windows[rng.random(windows.shape) < share] = NAN
    expected = windows.copy()
    for row in range(1, 6):
        expected[:, row] = np.where(np.isnan(expected[:, row]), expected[:, row - 1], expected[:, row])
    np.testing.assert_array_equal(fill_forward(windows), expected)


def test_scaling_is_done_in_float64_and_returned_in_float32() -> None:
    scaler = Scaler(mean=np.array([1e9, 0.0]), scale=np.array([0.5, 2.0]))
    scaled = scaler.transform(np.array([[[1e9 + 0.25, 3.0]]]))
    assert scaled.dtype == np.float32
    assert scaled.tolist() == [[[0.5, 1.5]]]  # in float32, 1e9 + 0.25 would be 1e9


@pytest.fixture(scope="module")
def stage() -> Preprocess:
    return Preprocess(TECH23, LOOKBACK, Scaler(np.arange(23.0), np.arange(1.0, 24.0)))


def row_batch(bars: list[Bars], features: list[Bars], has_bars: list[bool]) -> RowBatch:
    return RowBatch(
        digest="sha256:0",
        asset_ids=np.arange(len(has_bars)),
        has_bars=np.array(has_bars),
        bars=np.array([TECH23.stack(b, NEUTRAL) for b in bars]).reshape(-1, NEEDED, 7),
        timestamps=np.array([b.timestamp for b in bars], dtype="datetime64[us]").reshape(-1, NEEDED),
        features=np.array([features_of(b).values for b in features]).reshape(-1, LOOKBACK, 23),
    )


def test_rows_of_bars_and_rows_of_features_keep_their_places_in_a_batch(
    stage: Preprocess, bars: dict[str, Bars]
) -> None:
    aapl, ibm, msft = (bars[symbol].tail(NEEDED) for symbol in ("AAPL", "IBM", "MSFT"))
    mixed = asyncio.run(stage.run(row_batch([aapl, msft], [ibm], [True, False, True])))
    assert mixed.digest == "sha256:0"
    assert mixed.asset_ids.tolist() == [0, 1, 2]
    for history, window in zip((aapl, ibm, msft), mixed.windows, strict=True):
        np.testing.assert_array_equal(window, stage.scaler.transform(features_of(history).values))


@pytest.mark.parametrize("has_bars", [True, False])
def test_a_batch_of_one_kind_alone_is_fine(stage: Preprocess, bars: dict[str, Bars], has_bars: bool) -> None:
    histories = [bars["IBM"].tail(NEEDED)] * 2
    batch = row_batch(histories if has_bars else [], [] if has_bars else histories, [has_bars] * 2)
    assert asyncio.run(stage.run(batch)).windows.shape == (2, LOOKBACK, 23)
