"""Many symbols at once, in one forward pass."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from serve_app.errors import ServeAppError, StageFailed
from serve_app.supervised.in_process import InProcess
from serve_app.supervised.loading import load, warn_of_unread
from serve_app.types import Row

if TYPE_CHECKING:
    import pandas as pd


class BatchInferenceEngine:
    """A model for many symbols. `config` is that of `SupervisedNNStrategy`; with `bundle` in it, both paths are None.

    Raises as `SupervisedNNStrategy.load_dependencies`.
    """

    def __init__(self, model_path: str | None, scaler_path: str | None, config: Mapping[str, Any]) -> None:
        self.config = dict(config)
        warn_of_unread(config)
        self._in_process = InProcess.of(load({**config, "model_path": model_path, "scaler_path": scaler_path}))
        self.refusals: dict[str, ServeAppError] = {}
        """Symbols of the last batch that have no probability, and why."""

    def predict_batch(self, data_dict: Mapping[str, "pd.DataFrame"]) -> dict[str, float]:
        """Return {symbol: probability} from {symbol: frame}, without the symbols that cannot be answered.

        Raises StageFailed when the model answers nobody.
        """
        self.refusals = {}
        rows = {symbol: row for symbol, frame in data_dict.items() if (row := self._row(symbol, frame)) is not None}
        if not rows:
            return {}
        probabilities = self._in_process.predict(self._in_process.batch(list(rows.values())))
        answers = dict(zip(rows, probabilities.tolist(), strict=True))
        broken = [symbol for symbol, probability in answers.items() if not np.isfinite(probability)]
        self.refusals |= {symbol: StageFailed("the model gave no finite probability") for symbol in broken}
        return {symbol: probability for symbol, probability in answers.items() if symbol not in broken}

    def _row(self, symbol: str, frame: "pd.DataFrame") -> Row | None:
        try:
            return self._in_process.row(symbol, frame)
        except ServeAppError as error:
            self.refusals[symbol] = error
            return None
