import logging
from collections.abc import Sequence
from typing import Any

import pytest

from serve_app import pipeline as pipeline_module
from serve_app.doctor import Verdict
from serve_app.pipeline import Pipeline
from serve_app.strategy import Strategy
from serve_app.types import Action, Bars, Outcome, Reason, Row
from tests.factories import NEEDED, PRODUCTION
from tests.unit.preflight.bundles import check

LINES = ("refusals", "bad row", "no model")


def test_failures_are_made_to_happen_and_have_no_place_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    refused = "unknown_symbol, invalid_position, missing_columns, unknown_columns, too_few_bars, unsorted_timestamps"
    assert [check(PRODUCTION, name).finding for name in LINES] == [
        f"12 kinds of malformed request refused by name: {refused}, duplicate_timestamps, non_finite, invalid_bar",
        "the model made to fail on one of 12 rows: it abstains, 11 are answered",
        "no model answers: LONG since 8 bars → SELL, LONG since less and FLAT → HOLD",
    ]
    assert caplog.records == []
    assert not logging.getLogger("serve_app.pipeline").disabled


def test_what_is_accepted_or_refused_as_something_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(bars: Bars, _rules: object) -> Bars:
        whole = {
            name: bars.columns.get(name, bars.columns["open"]) for name in ("open", "high", "low", "close", "volume")
        }
        return Bars(bars.timestamp, whole).tail(NEEDED)

    monkeypatch.setattr(pipeline_module, "check_history", lenient)
    said = check(PRODUCTION, "refusals")
    assert said.verdict is Verdict.FAIL
    assert said.finding.count("accepted, not refused as") == 7
    assert "a price below zero: accepted, not refused as invalid_bar" in said.finding
    assert "an infinite feature" not in said.finding


def test_a_batch_that_fails_as_a_whole_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def all_or_nothing(pipeline: Pipeline, rows: Sequence[Row]) -> list[Outcome]:
        try:
            return await pipeline._pass(rows)
        except RuntimeError:
            return [pipeline.abstain(row, Reason.MODEL_UNAVAILABLE) for row in rows]

    monkeypatch.setattr(Pipeline, "run", all_or_nothing)
    said = check(PRODUCTION, "bad row")
    assert (said.verdict, said.finding) == (Verdict.FAIL, "the model failed on 1 of 12 rows; 12 abstained")


def test_a_position_that_cannot_be_left_without_a_model_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any) -> Action:
        return Action.HOLD

    monkeypatch.setattr(Strategy, "action_without_model", never)
    said = check(PRODUCTION, "no model")
    assert (said.verdict, said.finding) == (Verdict.FAIL, "without a model the actions are HOLD, HOLD, HOLD")
