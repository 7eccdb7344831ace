"""ModelMonitor and InferenceLogger: the interfaces that older trading code knows, on the rules of the monitor."""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from serve_app.config import RULES, AlertName
from serve_app.decision_log import FEATURES, JsonLines
from serve_app.errors import ConfigError
from serve_app.monitor import accuracy, latest, shift

SHIFT, ACCURACY = "distribution_shift", "min_accuracy"


@dataclass(frozen=True, slots=True)
class _Logged:
    prediction: float
    actual_outcome: bool | None


class ModelMonitor:
    """Holds predictions against limits. A prediction that equals a limit is well."""

    def __init__(self, alert_thresholds: Mapping[str, float], kept: int = 100_000) -> None:
        """`alert_thresholds` may hold `distribution_shift` (0.1) and `min_accuracy` (0.55).

        The latest `kept` predictions are remembered. Raises ConfigError for a threshold that nothing reads.
        """
        unknown = set(alert_thresholds) - {SHIFT, ACCURACY}
        if unknown:
            raise ConfigError(f"no rule reads {', '.join(sorted(unknown))}; thresholds are {SHIFT} and {ACCURACY}")
        self.alert_thresholds = alert_thresholds
        self._history: deque[_Logged] = deque(maxlen=kept)

    def log_prediction(self, prediction: float, symbol: str, actual_outcome: bool | None = None) -> None:  # noqa: ARG002
        """Remember a prediction, and what came of it if that is known. The symbol makes no difference to the rules."""
        self._history.append(_Logged(float(prediction), actual_outcome))

    def check_distribution_shift(self, window_size: int = 1000) -> dict[str, Any] | None:
        """Return an alert when the mean of the latest `window_size` predictions has moved from that of those before.

        None without an alert, and while there are fewer than twice `window_size`: a first window has nothing to be
        held against.
        """
        predictions = [one.prediction for one in latest(self._history, 2 * window_size)]
        moved = shift(predictions, window_size)
        if moved is None or moved <= self.alert_thresholds.get(SHIFT, RULES[AlertName.PREDICTION_SHIFT].limit):
            return None
        return {
            "alert": "Distribution Shift Detected",
            "recent_mean": float(np.mean(predictions[window_size:])),
            "historical_mean": float(np.mean(predictions[:window_size])),
            "shift": moved,
        }

    def calculate_rolling_accuracy(self, window_size: int = 100) -> dict[str, Any] | None:
        """Return the accuracy over the latest `window_size` predictions with an outcome, with an alert if it is low.

        None while there are fewer.
        """
        judged = [one for one in self._history if one.actual_outcome is not None][-window_size:]
        predictions = np.array([one.prediction for one in judged])
        right = accuracy(predictions, np.array([one.actual_outcome for one in judged], float), window_size)
        if right is None:
            return None
        if right < self.alert_thresholds.get(ACCURACY, RULES[AlertName.ROLLING_ACCURACY].limit):
            return {"alert": "Low Accuracy Detected", "rolling_accuracy": right, "window_size": window_size}
        return {"rolling_accuracy": right}


class InferenceLogger:
    """One JSON object a line for each inference. Files are turned over; no line is written twice."""

    def __init__(
        self,
        log_path: str | Path,
        max_bytes: int = 100 * 2**20,
        files: int = 5,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """A file that would get larger than `max_bytes` is renamed `….1`, and so on up to `files`."""
        self._lines = JsonLines(log_path, max_bytes, files)
        self._clock = clock

    def log_inference(self, symbol: str, prediction: float, features: Mapping[str, float], latency_ms: float) -> None:
        """Write a line: time (UTC), symbol, prediction, the first five features, latency in ms."""
        self._lines.write(
            {
                "timestamp": self._clock(),
                "symbol": symbol,
                "prediction": float(prediction),
                "features_summary": {name: float(value) for name, value in islice(features.items(), FEATURES)},
                "latency_ms": float(latency_ms),
            }
        )

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
