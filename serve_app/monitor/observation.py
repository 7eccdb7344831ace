"""What the monitor is told: answers summed up in the router, so that telling costs nearly nothing an answer."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from serve_app.errors import ServeAppError
from serve_app.types import Action, Decision, Reason, VariantName


class Answered(NamedTuple):
    """A decision, or the error that was answered instead, and how long that took."""

    answer: Decision | ServeAppError
    latency_ms: float


class Kind(NamedTuple):
    """What is counted of a decision."""

    model_version: str
    action: Action
    reason: Reason | None


@dataclass(slots=True)
class VariantObservations:
    """Decisions of one variant; latencies and batches are of those that rest on a model."""

    kinds: Counter[Kind] = field(default_factory=Counter)
    batch_sizes: Counter[int] = field(default_factory=Counter)
    """Batch size → rows that were in batches of it."""
    latencies_ms: list[float] = field(default_factory=list)
    stages_ms: dict[str, list[float]] = field(default_factory=dict)

    def add(self, decision: Decision, latency_ms: float) -> None:
        """Take in one decision. Abstentions are counted and never enter the statistics of what the model did."""
        self.kinds[Kind(decision.model_version, decision.action, decision.reason)] += 1
        if decision.reason is not None:
            return
        self.batch_sizes[decision.batch_size] += 1
        self.latencies_ms.append(latency_ms)
        for stage, value in decision.timings_ms.items():
            self.stages_ms.setdefault(stage, []).append(value)


@dataclass(frozen=True, slots=True)
class Observations:
    """Everything one router answered since it last told."""

    variants: Mapping[VariantName, VariantObservations]
    errors: Mapping[str, int]
    """By code. An error belongs to no variant."""


def observe(answers: Iterable[Answered]) -> Observations:
    """Sum up answers."""
    variants: dict[VariantName, VariantObservations] = {}
    errors: Counter[str] = Counter()
    for answer, latency_ms in answers:
        if isinstance(answer, ServeAppError):
            errors[answer.code] += 1
        else:
            variants.setdefault(answer.variant, VariantObservations()).add(answer, latency_ms)
    return Observations(variants, errors)


def answered(answers: Sequence[Decision | ServeAppError], latency_ms: float) -> list[Answered]:
    """Return the answers of one call, which took them all the same time."""
    return [Answered(answer, latency_ms) for answer in answers]
