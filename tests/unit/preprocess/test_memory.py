from dataclasses import replace

import numpy as np
import pytest

from serve_app.preprocess import TECH23, FeatureSet
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, VOLUME, Feature, Frame
from serve_app.preprocess.memory import measure_memory
from serve_app.types import Bars, FloatArray
from tests.factories import NEUTRAL


def measured(feature_set: FeatureSet, bars: Bars) -> dict[str, int]:
    return dict(measure_memory(feature_set, feature_set.stack(bars, NEUTRAL), bars.timestamp))


def with_feature(name: str, memory: int, feature: Feature) -> FeatureSet:
    return replace(TECH23, definitions={**TECH23.definitions, name: replace(feature, memory=memory)})


@pytest.mark.parametrize("symbol", ["AAPL", "GOOG", "IBM", "MSFT"])
def test_every_feature_reads_as_many_bars_as_it_declares(bars: dict[str, Bars], symbol: str) -> None:
    declared = {name: feature.memory for name, feature in TECH23.definitions.items()}
    assert measured(TECH23, bars[symbol].tail(300)) == declared


def test_a_memory_that_is_declared_too_long_is_noticed(bars: dict[str, Bars]) -> None:
    lazy = with_feature("SMA_10", 12, Feature(12, lambda f: ta.sma(f[CLOSE], 10)[..., 2:]))
    assert measured(lazy, bars["IBM"].tail(300))["SMA_10"] == 10


def test_a_memory_that_is_declared_too_short_is_noticed(bars: dict[str, Bars]) -> None:
    forgetful = with_feature("SMA_10", 9, TECH23.definitions["SMA_10"])
    assert measured(forgetful, bars["IBM"].tail(300))["SMA_10"] == 10


def test_a_feature_that_reads_no_prices_has_a_memory_of_one(bars: dict[str, Bars]) -> None:
    still = with_feature("SMA_10", 1, Feature(1, lambda f: np.zeros_like(f[CLOSE])))
    assert measured(still, bars["IBM"].tail(300))["SMA_10"] == 1


def total_volume(frame: Frame) -> FloatArray:
    """On-balance volume as most define it: a running total over whatever history there is."""
    total: FloatArray = np.cumsum(np.sign(np.diff(frame[CLOSE])) * frame[VOLUME][..., 1:], axis=-1)
    return total[..., 99:]


def test_a_feature_that_reads_all_it_is_given_is_noticed(bars: dict[str, Bars]) -> None:
    cumulative = with_feature("OBV", 101, Feature(101, total_volume))
    assert measured(cumulative, bars["IBM"].tail(300))["OBV"] != 101
