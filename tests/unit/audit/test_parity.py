import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serve_app.audit import Histories, ParityReport, audit_parity, histories_of
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.pipeline import Pipeline, preprocess_of, rules_of
from serve_app.preprocess import TECH23, FeatureSet
from serve_app.preprocess.feature_sets import CLOSE, SENTIMENT, VOLUME, Feature, Frame
from serve_app.types import Bars, FloatArray
from tests.factories import NEEDED, with_columns, with_stages, with_value
from tests.sizes import size
from tests.unit.test_parity import OTHERS


def report_of(pipeline: Pipeline, histories: Histories, **options: Any) -> ParityReport:
    return asyncio.run(audit_parity(pipeline, histories, **options))


def serving_with(pipeline: Pipeline, feature_set: FeatureSet) -> Pipeline:
    """A pipeline whose preprocess stage computes other features than the bundle was built with."""
    return with_stages(pipeline, preprocess=replace(preprocess_of(pipeline.bundle), feature_set=feature_set).run)


def changed(name: str, feature: Feature) -> FeatureSet:
    return replace(TECH23, definitions={**TECH23.definitions, name: feature})


@pytest.mark.parametrize("which", ["pipeline", "candidate"])
def test_the_shipped_bundles_serve_what_the_full_history_gives(
    which: str, request: pytest.FixtureRequest, histories: Histories
) -> None:
    stride = max(1, 3000 // size("audited windows per symbol"))
    report = report_of(request.getfixturevalue(which), histories, stride=stride)
    assert report.ok
    assert (report.window_mismatches, report.probability_mismatches, report.max_difference) == (0, 0, 0)
    assert report.max_probability_difference <= 1e-6
    expected = {symbol: -(-(len(bars) - NEEDED + 1) // stride) for symbol, bars in histories.bars.items()}
    assert report.symbols == expected


@pytest.mark.parametrize("name", OTHERS)
def test_an_indicator_that_serving_computes_otherwise_is_named(pipeline: Pipeline, ibm: Histories, name: str) -> None:
    report = report_of(serving_with(pipeline, changed(name, OTHERS[name])), ibm, stride=10)
    assert not report.ok
    assert list(report.features) == [name]
    assert report.window_mismatches == report.windows == 15
    first = report.first[0]
    assert (first.symbol, first.feature, first.time[:4]) == ("IBM", name, "2012")
    assert first.served != first.expected
    assert report.max_difference >= abs(first.served - first.expected) > 0


def total_volume(frame: Frame) -> FloatArray:
    """On-balance volume over whatever history there is: what training would see and serving cannot."""
    total: FloatArray = np.cumsum(np.sign(np.diff(frame[CLOSE])) * frame[VOLUME][..., 1:], axis=-1)
    return total[..., 99:]


def test_a_feature_that_reads_all_the_history_there_is_is_named(pipeline: Pipeline, ibm: Histories) -> None:
    cumulative = changed("OBV", Feature(101, total_volume))
    whole = serving_with(pipeline, cumulative)
    whole._rules = replace(whole._rules, feature_set=cumulative)
    assert list(report_of(whole, ibm, stride=10).features) == ["OBV"]


def test_a_difference_within_the_tolerance_is_reported_but_no_mismatch(pipeline: Pipeline, ibm: Histories) -> None:
    slightly = changed("1h_return", Feature(2, lambda f: TECH23.definitions["1h_return"].compute(f) * (1 + 1e-6)))
    off = serving_with(pipeline, slightly)
    assert not report_of(off, ibm, stride=10).ok
    tolerant = report_of(off, ibm, stride=10, tolerance=1e-4)
    assert tolerant.ok
    assert 0 < tolerant.max_difference <= 1e-4


def test_a_model_that_answers_otherwise_in_a_larger_batch_is_found(pipeline: Pipeline, histories: Histories) -> None:
    async def model(batch: WindowBatch) -> PredictionBatch:
        right = await pipeline.stages.model(batch)
        return replace(right, probabilities=right.probabilities + 1e-5 * (len(batch) > 64))

    report = report_of(with_stages(pipeline, model=model), histories, stride=20)
    assert report.window_mismatches == 0
    assert report.probability_mismatches > 0
    assert report.first[0].feature is None
    assert report.max_probability_difference == pytest.approx(1e-5, abs=1e-7)


def test_a_probability_that_is_not_a_number_is_a_mismatch(pipeline: Pipeline, ibm: Histories) -> None:
    async def model(batch: WindowBatch) -> PredictionBatch:
        nothing = np.full(len(batch), np.nan)
        return PredictionBatch(batch.digest, nothing.astype(np.float32), nothing)

    report = report_of(with_stages(pipeline, model=model), ibm, stride=10)
    assert (report.probability_mismatches, report.ok) == (15, False)


def test_a_feature_that_serving_cannot_give_is_infinitely_far(pipeline: Pipeline, ibm: Histories) -> None:
    nothing = changed("SMA_10", Feature(1, lambda f: np.full_like(f[CLOSE], np.nan)))
    report = report_of(serving_with(pipeline, nothing), ibm, stride=50)
    assert report.max_difference == np.inf
    assert list(report.features) == ["SMA_10"]


def test_gaps_are_filled_alike_and_windows_that_serving_refuses_are_counted(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    recent = with_columns(bars["IBM"].tail(420), **{SENTIMENT: 0.7})
    given = {"IBM": with_value(recent, SENTIMENT, 400, np.nan)}
    report = report_of(pipeline, histories_of(pipeline.bundle, rules_of(pipeline.bundle), given))
    # The gap is the first row of one window, and nothing before it may fill it there.
    assert not report.refused
    assert report.windows == 148
    gap_in_a_first_row = {"IBM": with_value(recent, SENTIMENT, 390, np.nan)}
    report = report_of(pipeline, histories_of(pipeline.bundle, rules_of(pipeline.bundle), gap_in_a_first_row))
    assert report.refused == {"too_many_missing": 1}
    assert (report.windows, report.ok) == (147, True)


def test_an_audit_that_compared_nothing_is_not_passed(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    given = {"IBM": with_columns(bars["IBM"].tail(300), **{SENTIMENT: np.nan})}
    report = report_of(pipeline, histories_of(pipeline.bundle, rules_of(pipeline.bundle), given))
    assert (report.windows, report.refused, report.ok) == (0, {"too_many_missing": 28}, False)


def test_the_latest_decision_is_compared_whatever_the_stride_and_progress_reaches_its_end(
    pipeline: Pipeline, ibm: Histories
) -> None:
    seen: list[tuple[int, int]] = []
    spoilt = serving_with(pipeline, changed("RSI_14", OTHERS["RSI_14"]))
    report = report_of(spoilt, ibm, stride=1000, progress=lambda done, total: seen.append((done, total)))
    assert [mismatch.time for mismatch in report.first] == ["2013-03-01T00:00:00Z"]
    assert seen == [(1, 1)]
