from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.doctor import Verdict
from serve_app.model import Bundle
from serve_app.pipeline import Pipeline
from serve_app.types import Bars
from tests.factories import PRODUCTION, with_value
from tests.unit.preflight.bundles import check, with_metadata

TRAIN = {"start": "2001-03-29T00:00:00Z", "end": "2009-03-26T00:00:00Z", "windows": 6914}


def test_what_the_scaler_saw_is_told_from_the_metadata() -> None:
    said = check(PRODUCTION, "fitted on").finding
    assert said.startswith("fitted on the training period, 6914 windows from 2001-03-29 to 2009-03-26; validation")


@pytest.mark.parametrize(
    ("ranges", "verdict", "said"),
    [
        (None, Verdict.WARN, "it is unknown what the scaler saw"),
        ("unknown", Verdict.WARN, "it is unknown"),
        ({"test": TRAIN}, Verdict.WARN, "it is unknown"),
        ({"train": {"start": "some day", "end": None, "windows": 3}}, Verdict.WARN, "it is unknown"),
        ({"train": {"start": None, "end": None, "windows": 0}}, Verdict.FAIL, "knows no window"),
        ({"train": TRAIN, "validation": TRAIN}, Verdict.FAIL, "to 2009-03-26, within which validation begins"),
        ({"train": TRAIN}, Verdict.OK, "6914 windows from 2001-03-29 to 2009-03-26"),
        ({"train": TRAIN, "test": {"start": None, "end": None, "windows": 0}}, Verdict.OK, "6914 windows"),
    ],
)
def test_a_scaler_is_known_to_be_of_the_training_period_or_not(
    bundle: Bundle, tmp_path: Path, ranges: Any, verdict: Verdict, said: str
) -> None:
    found = check(with_metadata(bundle, tmp_path, data_ranges=ranges), "fitted on")
    assert (found.verdict, said in found.finding) == (verdict, True), found


def test_equal_names_with_other_definitions_are_a_warning(bundle: Bundle, tmp_path: Path) -> None:
    differences = {"features": {"OBV": "cumulative elsewhere"}, "files": []}
    said = check(with_metadata(bundle, tmp_path, known_differences=differences), "features")
    assert (said.verdict, said.finding.endswith("may have been computed otherwise: OBV")) == (Verdict.WARN, True)
    assert check(PRODUCTION, "features").finding.startswith("23 features, names and order are those of tech23.v1")


def test_served_windows_are_held_against_the_full_history(bars: dict[str, Bars]) -> None:
    said = check(PRODUCTION, "parity", bars={"IBM": bars["IBM"].tail(500), "FB": bars["FB"]})
    assert (said.verdict, said.finding) == (
        Verdict.OK,
        "114 windows of IBM, one decision point in 2: to the bit what the full history gives",
    )


def test_bars_of_another_interval_prove_the_arithmetic_and_are_named(bars: dict[str, Bars]) -> None:
    hours = np.datetime64("2012-01-02T00:00:00", "us") + np.arange(300) * np.timedelta64(1, "h")
    said = check(PRODUCTION, "parity", bars={"IBM": replace(bars["IBM"].tail(300), timestamp=hours)})
    assert said.verdict is Verdict.WARN
    assert "to the bit what the full history gives; but the bars of the data are 3600 s apart" in said.finding


def test_a_window_that_serving_computes_otherwise_is_found(
    bars: dict[str, Bars], monkeypatch: pytest.MonkeyPatch
) -> None:
    row = Pipeline.row

    def other_volume(pipeline: Pipeline, request: Any) -> Any:
        made = row(pipeline, request)
        assert made.bars is not None
        made.bars[-1, 4] *= 1.5
        return made

    monkeypatch.setattr(Pipeline, "row", other_volume)
    said = check(PRODUCTION, "parity", bars={"IBM": bars["IBM"].tail(300)})
    assert (said.verdict, "28 windows and" in said.finding) == (Verdict.FAIL, True)


def test_bars_that_serving_refuses_are_named(bars: dict[str, Bars]) -> None:
    said = check(PRODUCTION, "parity", bars={"IBM": with_value(bars["IBM"], "volume", 3, np.nan)})
    assert (said.verdict, "IBM: bars[3].volume" in said.finding) == (Verdict.FAIL, True)
    said = check(PRODUCTION, "parity", bars={"FB": bars["FB"]})
    assert (said.verdict, "not trained on 'FB'" in said.finding) == (Verdict.FAIL, True)


def test_windows_that_are_all_refused_compare_nothing(bars: dict[str, Bars]) -> None:
    gaps = bars["IBM"].tail(300)
    columns = {**gaps.columns, "vwap": np.full(len(gaps), np.nan), "sentiment_score_hourly_ffill": np.full(300, np.nan)}
    said = check(PRODUCTION, "parity", bars={"IBM": Bars(gaps.timestamp, columns)})
    assert said.verdict is Verdict.FAIL
    assert "0 windows of no symbol" in said.finding
    assert "28 refused as too_many_missing" in said.finding


def test_special_handling_is_what_the_bundle_says() -> None:
    said = check(PRODUCTION, "handling").finding
    for part in (
        "ffill",
        "at most 10%",
        "sentiment_score_hourly_ffill = 0.5",
        "273 bars for a window of 24",
        "86400 s",
    ):
        assert part in said
