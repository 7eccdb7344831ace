"""What every system is asked, and what it has to answer: real windows and the probabilities of the reference bundle."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np

from benchmarks.train_reference import REFERENCE, SOURCE
from serve_app.cli.common import bars_of
from serve_app.config import ModelConfig
from serve_app.model import Bundle, load_bundle
from serve_app.pipeline import Pipeline, model_of, preprocess_of, stages_of
from serve_app.training.golden import decision_points
from serve_app.types import Bars, FloatArray

N = 64
"""Different requests; a system that remembers answers gains nothing worth having."""
TOLERANCE = 1e-5
"""Of a probability, between runtimes; float32 all."""


@dataclass(frozen=True, slots=True)
class Question:
    """One request: bars as they come, the features of the window (24, 23), unscaled, and the right probability."""

    symbol: str
    bars: Bars
    features: FloatArray
    probability: float


@cache
def reference() -> Bundle:
    """Return the bundle that every system serves."""
    return load_bundle(REFERENCE)


@cache
def questions() -> tuple[Question, ...]:
    """Return N decision points, spread over the symbols and years, with what the bundle itself says of them."""
    bundle = reference()
    bars = {symbol: history for symbol, history in bars_of(SOURCE).items() if symbol in bundle.symbol_to_id}
    requests = decision_points(bundle, bars, N // len(bars))
    preprocess, model = preprocess_of(bundle), model_of(bundle, ModelConfig())
    pipeline = Pipeline(bundle, stages_of(bundle, model.run))
    batch = pipeline.stack([pipeline.row(request) for request in requests])
    probabilities = model.predict(preprocess.windows(batch)).probabilities.tolist()
    return tuple(
        Question(request.symbol, cast("Bars", request.history), features, probability)
        for request, features, probability in zip(requests, preprocess.features(batch), probabilities, strict=True)
    )


def wrong(answers: Sequence[float], asked: Sequence[Question]) -> str | None:
    """Say what is wrong with probabilities, or None."""
    errors = np.abs(np.array(answers) - [question.probability for question in asked])
    if len(answers) == len(asked) and (errors <= TOLERANCE).all():
        return None
    return f"{len(answers)} answers for {len(asked)} questions, largest error {errors.max(initial=np.inf):.2e}"
