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
    """One request: bars as they come, the named features of the window (L, F), unscaled, and the right probability."""

    symbol: str
    bars: Bars
    columns: Sequence[str]
    features: FloatArray
    probability: float


@cache
def reference() -> Bundle:
    """Return the bundle that every system serves."""
    return load_bundle(REFERENCE)


@cache
def questions() -> tuple[Question, ...]:
    """Return N decision points, with what the reference bundle itself says of them."""
    return tuple(questions_of(reference(), N // len(reference().symbol_to_id)))


def questions_of(bundle: Bundle, per_symbol: int) -> list[Question]:
    """Return decision points, spread over the history of every symbol that a bundle knows."""
    requests = decision_points(bundle, bars_of(SOURCE), per_symbol)
    preprocess, model = preprocess_of(bundle), model_of(bundle, ModelConfig())
    pipeline = Pipeline(bundle, stages_of(bundle, model.run))
    batch = pipeline.stack([pipeline.row(request) for request in requests])
    probabilities = model.predict(preprocess.windows(batch)).probabilities.tolist()
    columns = bundle.config.feature_list
    return [
        Question(request.symbol, cast("Bars", request.history), columns, features, probability)
        for request, features, probability in zip(requests, preprocess.features(batch), probabilities, strict=True)
    ]


def wrong(answers: Sequence[float], asked: Sequence[Question]) -> str | None:
    """Say what is wrong with probabilities, or None."""
    if len(answers) != len(asked):
        return f"{len(answers)} answers for {len(asked)} questions"
    errors = np.abs(np.array(answers) - [question.probability for question in asked])
    return None if (errors <= TOLERANCE).all() else f"the largest error of a probability is {errors.max():.2e}"
