import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from serve_app.errors import ConfigError
from serve_app.supervised import InferenceLogger, ModelMonitor

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def monitor(predictions: list[float], outcomes: list[bool] | None = None, **thresholds: float) -> ModelMonitor:
    made = ModelMonitor(thresholds)
    for i, prediction in enumerate(predictions):
        made.log_prediction(prediction, "IBM", outcomes[i] if outcomes else None)
    return made


@pytest.mark.parametrize("n", [0, 999, 1000, 1001, 1999])
def test_a_first_window_raises_no_alarm(n: int) -> None:
    assert monitor([0.0] * max(0, n - 1000) + [1.0] * min(n, 1000)).check_distribution_shift() is None


def test_a_shift_beyond_the_limit_alarms_and_one_of_the_limit_does_not() -> None:
    assert monitor([0.25] * 8 + [0.375] * 8, distribution_shift=0.125).check_distribution_shift(8) is None
    alert = monitor([0.9] + [0.25] * 8 + [0.5] * 8, distribution_shift=0.125).check_distribution_shift(8)
    assert alert == {
        "alert": "Distribution Shift Detected",
        "recent_mean": 0.5,
        "historical_mean": 0.25,
        "shift": 0.25,
    }


def test_accuracy_is_of_those_with_an_outcome_at_one_half_and_alarms_below_the_limit() -> None:
    predictions = [0.5] * 55 + [0.49] * 45
    well = monitor([*predictions, 0.9], [*[True] * 100, True])
    assert monitor(predictions[:99], [True] * 99).calculate_rolling_accuracy() is None
    assert monitor(predictions, [True] * 100).calculate_rolling_accuracy() == {"rolling_accuracy": 0.55}
    assert well.calculate_rolling_accuracy() == {"rolling_accuracy": 0.55}
    assert monitor([0.49, *predictions[1:]], [True] * 100).calculate_rolling_accuracy() == {
        "alert": "Low Accuracy Detected",
        "rolling_accuracy": 0.54,
        "window_size": 100,
    }
    assert monitor([0.9] * 200).calculate_rolling_accuracy() is None


def test_a_threshold_that_nothing_reads_is_refused() -> None:
    with pytest.raises(ConfigError, match="min_acuracy"):
        ModelMonitor({"min_acuracy": 0.6})


def test_each_inference_is_one_line_of_json(tmp_path: Path) -> None:
    log = InferenceLogger(tmp_path / "log", clock=lambda: NOW)
    again = InferenceLogger(tmp_path / "log", clock=lambda: NOW)
    features = {f"f{i}": float(i) for i in range(9)}
    log.log_inference("IBM", np.float64(0.7), features, 1.5)
    again.log_inference("GOOG", 0.2, {}, 2)
    first, second = map(json.loads, (tmp_path / "log").read_text().splitlines())
    assert first == {
        "timestamp": "2026-01-01T00:00:00Z",
        "symbol": "IBM",
        "prediction": 0.7,
        "features_summary": {"f0": 0.0, "f1": 1.0, "f2": 2.0, "f3": 3.0, "f4": 4.0},
        "latency_ms": 1.5,
    }
    assert (second["symbol"], second["features_summary"]) == ("GOOG", {})
    log.close()
    again.close()


def test_files_are_turned_over_and_no_line_is_cut(tmp_path: Path) -> None:
    log = InferenceLogger(tmp_path / "log", max_bytes=500, files=2, clock=lambda: NOW)
    for i in range(30):
        log.log_inference(f"S{i}", 0.5, {}, 1.0)
    log.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["log", "log.1", "log.2"]
    lines = [json.loads(line)["symbol"] for path in files[::-1] for line in path.read_text().splitlines()]
    assert lines == [f"S{i}" for i in range(30 - len(lines), 30)]
    assert all(path.stat().st_size <= 500 for path in files)
