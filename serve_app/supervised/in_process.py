"""A bundle and its stages in this process, for callers that wait."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from serve_app.batches import WindowBatch
from serve_app.errors import StageFailed, UnknownSymbol
from serve_app.model import Bundle
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline, preprocess_of, rules_of, stages_of
from serve_app.preprocess import HistoryRules, Preprocess
from serve_app.supervised.frames import history_of
from serve_app.types import FloatArray, Row, SignalRequest

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class InProcess:
    """A bundle and its stages, without an event loop."""

    bundle: Bundle
    rules: HistoryRules
    pipeline: Pipeline
    preprocess: Preprocess
    model: Model

    def batch(self, rows: Sequence[Row]) -> WindowBatch:
        """Turn validated rows into scaled windows (B, L, F)."""
        return self.preprocess.windows(self.pipeline.stack(rows))  # noqa: PD013  no frame

    def row(self, symbol: Any, frame: "pd.DataFrame") -> Row:
        """Validate the data of a symbol. Raises a subclass of UnusableRequest."""
        if not symbol or not isinstance(symbol, str):
            raise UnknownSymbol(f"{symbol!r} is no symbol, and without one there is no embedding to take")
        return self.pipeline.row(SignalRequest(symbol, history_of(frame, self.rules)))

    def predict(self, windows: WindowBatch) -> FloatArray:
        """Return probabilities (B,), NaN where the model gives none. Raises StageFailed when it does not answer."""
        try:
            return self.model.predict(windows).probabilities
        except StageFailed:
            raise
        except Exception as error:
            raise StageFailed(f"the model did not answer: {error}") from error

    @classmethod
    def of(cls, bundle: Bundle) -> "InProcess":
        """Build the stages of a bundle."""
        model = Model(bundle)
        pipeline = Pipeline(bundle, stages_of(bundle, model.run))
        return cls(bundle, rules_of(bundle), pipeline, preprocess_of(bundle), model)
