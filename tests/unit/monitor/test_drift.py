from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from serve_app.model import load_bundle
from serve_app.monitor.drift import BLOCK, FALSE_ALARM_BLOCKS, DriftWatch, Seen
from serve_app.reference import Reference
from serve_app.training.reference import blocks, seen_in_training
from serve_app.types import Bars, Float32Array
from tests.factories import PRODUCTION
from tests.sizes import size

TRAIN_END = np.datetime64("2009-03-26")


@pytest.fixture(scope="module")
def reference() -> Reference:
    found = load_bundle(PRODUCTION).reference
    assert found is not None
    return found


@pytest.fixture(scope="module")
def trained(bars: dict[str, Bars]) -> dict[str, Float32Array]:
    return seen_in_training(load_bundle(PRODUCTION), bars, TRAIN_END)


def watch(reference: Reference) -> DriftWatch:
    return DriftWatch(reference, np.random.default_rng(3))


def shifted(bars: Bars, start: int, **columns: float) -> Bars:
    """Bars of which some columns are multiplied from one on."""
    factors = {name: np.where(np.arange(len(bars)) < start, 1.0, factor) for name, factor in columns.items()}
    changed = {name: values * factors.get(name, 1.0) for name, values in bars.columns.items()}
    return replace(bars, columns=changed)


def seen_after(bars: Bars, symbol: str, rows: int, **columns: float) -> Float32Array:
    """What v1.0 sees of the last rows of its training period, from 200 bars before of which they are shifted."""
    end = int(np.searchsorted(bars.timestamp, TRAIN_END, side="right"))
    changed = shifted(bars.until(end + 10), end - rows - 200, **columns)
    return seen_in_training(load_bundle(PRODUCTION), {symbol: changed}, TRAIN_END)[symbol][-rows:]


PRICES = dict.fromkeys(["open", "high", "low", "close"], 3.0)


def test_prices_times_three_are_named_within_200_predictions(reference: Reference, bars: dict[str, Bars]) -> None:
    one = watch(reference)
    one.add(Seen(("MSFT",) * 200, seen_after(bars["MSFT"], "MSFT", 200)))
    assert one.drifted() == {}
    one.add(Seen(("MSFT",) * 200, seen_after(bars["MSFT"], "MSFT", 200, **PRICES)))
    drifted = one.drifted()
    assert {"open", "high", "low", "close", "vwap", "SMA_10", "SMA_20"} <= set(drifted)
    assert not {"RSI_14", "Stoch_K", "1h_return", "DayOfWeek_sin", "sentiment_score_hourly_ffill"} & set(drifted)


def test_volume_of_nothing_is_named(reference: Reference, bars: dict[str, Bars]) -> None:
    one = watch(reference)
    one.add(Seen(("IBM",) * 200, seen_after(bars["IBM"], "IBM", 200, volume=0.0)))
    assert {"volume", "Volume_SMA_20"} <= set(one.drifted()) <= {"volume", "Volume_SMA_20", "OBV", "score"}


@pytest.mark.parametrize("name", ["RSI_14", "close", "1h_return"])
def test_a_frozen_feature_is_named(reference: Reference, trained: dict[str, Float32Array], name: str) -> None:
    one, rows = watch(reference), trained["IBM"][-200:].copy()
    f = list(reference.features).index(name)
    rows[:, f] = rows[0, f]
    one.add(Seen(("IBM",) * 200, rows))
    assert "frozen" in one.drifted()[name]
    assert set(one.drifted()) == {name}


def test_what_clients_leave_out_is_named(reference: Reference, trained: dict[str, Float32Array]) -> None:
    one, rows = watch(reference), trained["AAPL"][-100:].copy()
    f = list(reference.features).index("sentiment_score_hourly_ffill")
    rows[::5, f] = np.nan
    one.add(Seen(("AAPL",) * 100, rows))
    assert one.drifted() == {"sentiment_score_hourly_ffill": ("missing",)}
    assert one.latest is not None
    assert one.latest["sentiment_score_hourly_ffill"].missing == pytest.approx(0.2)


def test_a_score_that_no_longer_follows_the_features_is_named(
    reference: Reference, trained: dict[str, Float32Array]
) -> None:
    one, rows = watch(reference), trained["AAPL"][-100:].copy()
    rows[:, -1] = 0.999
    one.add(Seen(("AAPL",) * 100, rows))
    assert set(one.drifted()) == {"score"}


def test_training_itself_stays_within_the_budget_of_false_alarms(
    reference: Reference, trained: dict[str, Float32Array]
) -> None:
    one, rng, alarms, n = watch(reference), np.random.default_rng(2026), 0, size("blocks without drift")
    for symbol, cut in blocks(trained, n, rng):
        one.add(Seen((symbol,) * BLOCK, trained[symbol][cut]))
        alarms += bool(one.drifted())
    assert alarms <= stats.poisson.isf(1e-4, n / FALSE_ALARM_BLOCKS)


def test_a_verdict_waits_for_its_block_and_goes_with_the_next(
    reference: Reference, trained: dict[str, Float32Array]
) -> None:
    one, rows = watch(reference), trained["IBM"][-200:]
    broken = rows[:100].copy()
    broken[:, -1] = 0.999
    one.add(Seen(("IBM",) * 99, broken[:99]))
    assert one.snapshot() is None
    one.add(Seen(("IBM",), broken[99:]))
    assert one.drifted() == {"score": ("range", "frozen")}
    one.add(Seen(("IBM", "FB") * 100, np.repeat(rows[100:], 2, axis=0)))  # FB has no reference
    assert one.drifted() == {}
    snapshot = one.snapshot()
    assert snapshot is not None
    assert list(snapshot) == list(reference.features)


def test_a_reference_comes_back_as_it_was(reference: Reference) -> None:
    again = Reference.from_bytes(reference.to_bytes())
    assert again.to_bytes() == reference.to_bytes()
    assert list(again.features[-2:]) == ["DayOfWeek_cos", "score"]
    with pytest.raises(ValueError, match="fit together"):
        Reference.from_bytes(replace(reference, symbols=reference.symbols[:2]).to_bytes())
