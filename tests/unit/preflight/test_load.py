import asyncio
from itertools import cycle
from pathlib import Path

import pytest

from serve_app.doctor import Verdict
from serve_app.errors import StageUnavailable
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline
from serve_app.preflight.load import BATCHES, LIMIT_S, measure
from serve_app.types import SignalRequest
from tests.factories import CANDIDATE, PRODUCTION, Failing, with_stages
from tests.unit.preflight.bundles import check


class Clock:
    """Each look at it is later, by steps that repeat."""

    def __init__(self, *steps: float) -> None:
        self.now, self.steps = 0.0, cycle(steps)

    def __call__(self) -> float:
        self.now += next(self.steps)
        return self.now


def test_rows_a_second_and_percentiles_are_those_of_the_passes(
    pipeline: Pipeline, golden_requests: list[SignalRequest]
) -> None:
    rows = [pipeline.row(request) for request in golden_requests]
    # Started, then for each pass: still within the limit, begun, done.
    clock = Clock(0.0, *(step for took in (0.002, 0.004) for step in (0.0, 0.0, took)))
    rate = asyncio.run(measure(pipeline, rows, 16, 32, clock))
    assert (rate.rows, rate.abstained) == (32, 0)
    assert rate.rows_per_s == pytest.approx(32 / 0.006)
    assert (rate.p50_ms, rate.p99_ms) == pytest.approx((3.0, 3.98))
    assert str(rate) == "batches of 16: 5333 rows/s, p50 3.00 ms, p99 3.98 ms"


def test_a_slow_model_is_not_measured_for_ever(pipeline: Pipeline, golden_requests: list[SignalRequest]) -> None:
    rows = [pipeline.row(request) for request in golden_requests]
    rate = asyncio.run(measure(pipeline, rows, 1, 10**6, Clock(LIMIT_S / 3)))
    assert rate.rows == 1
    assert rate.p50_ms == pytest.approx(1e3 * LIMIT_S / 3)


def test_a_measurement_in_this_process_is_no_load_test() -> None:
    said = check(PRODUCTION, "load", config=None)
    assert said.verdict is Verdict.WARN
    assert [f"batches of {size}: " in said.finding for size in BATCHES] == [True] * 3
    assert "deadline 2000 ms. The deployed graph was not loaded" in said.finding
    assert "wrk" in said.advice


def test_what_is_slower_than_its_deadline_must_not_be_deployed() -> None:
    said = check(PRODUCTION, "load", clock=Clock(3.0))
    assert (said.verdict, said.finding.endswith("beyond the deadline 2000 ms")) == (Verdict.FAIL, True)


def test_rows_that_are_not_answered_are_counted(
    pipeline: Pipeline, golden_requests: list[SignalRequest], caplog: pytest.LogCaptureFixture
) -> None:
    away = with_stages(pipeline, model=Failing(StageUnavailable("nobody")).run)
    rate = asyncio.run(measure(away, [away.row(golden_requests[0])], 4, 8, Clock(0.001)))
    assert (rate.rows, rate.abstained) == (4, 4)
    assert "nobody" in caplog.text


def test_a_model_that_does_not_answer_must_not_be_deployed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def predict(*_: object) -> None:
        raise StageUnavailable("nobody")

    monkeypatch.setattr(Model, "predict", predict)
    said = check(PRODUCTION, "load")
    assert (said.verdict, said.finding[:37]) == (Verdict.FAIL, "81 of 81 rows were not answered; batc")
    assert caplog.records == []


@pytest.mark.parametrize(("path", "deadline"), [(PRODUCTION, "2000 ms"), (CANDIDATE, "1000 ms")])
def test_the_deadline_is_the_one_of_its_variant(path: Path, deadline: str) -> None:
    assert f"deadline {deadline}. " in check(path, "load", config=Path("configs/ab_test.yaml")).finding
