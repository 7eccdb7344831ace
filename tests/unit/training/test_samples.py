import numpy as np

from serve_app.model import LabelDefinition
from serve_app.preprocess import TECH23
from serve_app.preprocess.feature_sets import SENTIMENT
from serve_app.training.samples import FeatureTable, feature_table, fit_scaler, make_samples
from serve_app.types import Bars

from .market import random_bars, shaken

LOOKBACK, DEFINITION = 24, LabelDefinition(0.02, 0.02, 8)
NEEDED = TECH23.bars_needed(LOOKBACK)


def table(bars: Bars) -> FeatureTable:
    return feature_table(bars, TECH23, LOOKBACK, DEFINITION, {SENTIMENT: 0.5})


def test_a_row_is_usable_from_the_first_complete_window_to_the_last_complete_label() -> None:
    usable = np.flatnonzero(table(random_bars(400, 1)).usable)
    assert usable.tolist() == list(range(NEEDED - 1, 400 - DEFINITION.horizon_bars))
    assert not table(random_bars(NEEDED - 1, 1)).usable.any()


def test_a_window_holds_the_scaled_rows_that_end_at_its_time() -> None:
    rows = table(random_bars(400, 1))
    scaler = fit_scaler([rows], rows.timestamps[-1])
    everything = np.ones(400, dtype=bool)
    samples = make_samples({5: rows}, {5: everything}, scaler, LOOKBACK)
    ends = np.flatnonzero(rows.usable)
    assert samples.windows.shape == (len(ends), LOOKBACK, len(TECH23.features))
    assert samples.windows.dtype == np.float32
    assert set(samples.asset_ids) == {5}
    last = rows.features[ends[-1] - LOOKBACK + 1 : ends[-1] + 1]
    np.testing.assert_array_equal(samples.windows[-1], scaler.transform(last))
    np.testing.assert_array_equal(samples.timestamps, rows.timestamps[ends])


def test_a_window_is_the_one_that_serving_computes_from_its_last_bars_alone() -> None:
    bars = random_bars(400, 1)
    recent = bars.tail(NEEDED)
    served = TECH23.compute(TECH23.stack(recent, {SENTIMENT: 0.5})[None], recent.timestamp[None], LOOKBACK)[0]
    np.testing.assert_array_equal(served, table(bars).features[-LOOKBACK:])


def test_the_scaler_is_fitted_on_each_training_row_once_and_on_no_later_one() -> None:
    bars = random_bars(400, 1)
    cut = bars.timestamp[320]
    scaler = fit_scaler([table(bars)], cut)
    complete = table(bars).features[TECH23.memory - 1 : 321]
    np.testing.assert_allclose(scaler.mean, complete.mean(axis=0), rtol=1e-9, atol=1e-9)
    later = fit_scaler([table(shaken(bars, cut))], cut)
    np.testing.assert_array_equal(later.mean, scaler.mean)
    np.testing.assert_array_equal(later.scale, scaler.scale)


def test_a_gap_is_filled_forward_and_a_window_that_starts_with_one_is_left_out() -> None:
    bars = random_bars(400, 1)
    sentiment = np.full(400, 0.7)
    sentiment[340] = np.nan
    rows = table(Bars(bars.timestamp, {**bars.columns, SENTIMENT: sentiment}))
    assert np.flatnonzero(~rows.usable[NEEDED - 1 : 392]).tolist() == [340 + LOOKBACK - 1 - (NEEDED - 1)]
