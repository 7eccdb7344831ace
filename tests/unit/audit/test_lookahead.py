import asyncio
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from serve_app.audit import Histories, LookaheadReport, audit_lookahead
from serve_app.audit.lookahead import FACTORS
from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.pipeline import Pipeline
from serve_app.preprocess import TECH23
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, VOLUME, Feature, Frame
from serve_app.types import FloatArray
from tests.factories import with_stages
from tests.sizes import size


def report_of(pipeline: Pipeline, histories: Histories, **options: Any) -> LookaheadReport:
    return asyncio.run(audit_lookahead(pipeline, histories, **options))


def one_bar_ahead(values: FloatArray) -> FloatArray:
    return np.concatenate([values[..., 1:], values[..., -1:]], axis=-1)


def peeking_average(frame: Frame) -> FloatArray:
    """A centred average, as a careless filter has it."""
    return ta.sma(one_bar_ahead(frame[CLOSE]), 10)


PEEKS = {
    "close": Feature(1, lambda f: one_bar_ahead(f[CLOSE])),
    "SMA_10": Feature(10, peeking_average),
    "volume": Feature(1, lambda f: f[VOLUME] / f[VOLUME].max(axis=-1, keepdims=True)),
    "1h_return": Feature(2, lambda f: one_bar_ahead(ta.simple_return(f[CLOSE]))),
    "DayOfWeek_sin": Feature(1, lambda f: one_bar_ahead(ta.day_of_week(f.timestamp).astype(float))),
}


@pytest.mark.parametrize("which", ["pipeline", "candidate"])
def test_no_feature_and_no_action_of_the_shipped_bundles_reads_what_comes_later(
    which: str, request: pytest.FixtureRequest, histories: Histories
) -> None:
    points = size("points of a lookahead audit")
    report = report_of(request.getfixturevalue(which), histories, points=points)
    assert report.ok
    assert (report.points, report.tries) == (4 * points, 4 * points * len(FACTORS))
    assert (report.features, report.probabilities_changed, report.actions_changed, report.first) == ({}, 0, 0, ())


@pytest.mark.parametrize("name", PEEKS)
def test_a_feature_that_peeks_is_named(pipeline: Pipeline, ibm: Histories, name: str) -> None:
    peeking = replace(TECH23, definitions={**TECH23.definitions, name: PEEKS[name]})
    report = report_of(pipeline, ibm, points=10, feature_set=peeking)
    assert not report.ok
    assert list(report.features) == [name]
    leak = report.first[0]
    assert (leak.symbol, leak.feature) == ("IBM", name)
    assert leak.factor in FACTORS
    assert leak.change != 0


def test_what_a_peek_does_to_the_answer_is_counted(pipeline: Pipeline, ibm: Histories) -> None:
    peeking = replace(TECH23, definitions={**TECH23.definitions, "close": PEEKS["close"]})
    report = report_of(pipeline, ibm, points=10, feature_set=peeking)
    assert report.features["close"] == report.tries == 40
    assert report.probabilities_changed > 0


def test_a_model_whose_answers_depend_on_their_neighbours_is_found(pipeline: Pipeline, ibm: Histories) -> None:
    async def model(batch: WindowBatch) -> PredictionBatch:
        drifting = np.linspace(0.1, 0.9, len(batch))
        return PredictionBatch(batch.digest, drifting.astype(np.float32), drifting)

    report = report_of(with_stages(pipeline, model=model), ibm, points=5)
    assert not report.ok
    assert report.features == {}
    assert report.actions_changed > 0


def test_the_same_seed_gives_the_same_report(pipeline: Pipeline, ibm: Histories) -> None:
    peeking = replace(TECH23, definitions={**TECH23.definitions, "close": PEEKS["close"]})
    first, again, other = (report_of(pipeline, ibm, points=5, seed=seed, feature_set=peeking) for seed in (1, 1, 2))
    assert first == again != other


def test_points_reach_from_the_first_decision_to_the_last_that_has_a_later_bar(
    pipeline: Pipeline, ibm: Histories
) -> None:
    seen: list[tuple[int, int]] = []
    report = report_of(pipeline, ibm, points=1000, progress=lambda done, total: seen.append((done, total)))
    assert report.points == 420 - 273
    assert seen[-1] == (147, 147)
