"""What the monitor is told: the decisions of one router since it last told, and its errors since it began."""

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

import numpy as np

from serve_app.monitor.candles import Candles
from serve_app.monitor.drift import Seen
from serve_app.reference import Reference
from serve_app.types import Decision, Kind

MOST_SEEN = 100
"""Rows of a bundle that are looked at, of those that are told together."""


class Answered(NamedTuple):
    """A decision, and how long its request took."""

    decision: Decision
    latency_ms: float
    at: datetime


class Observation(NamedTuple):
    """One decision. Its id is what keeps it from being counted twice."""

    decision_id: str
    symbol: str
    timestamp: datetime | None
    kind: Kind
    probability: float | None
    latency_ms: float
    stages_ms: Mapping[str, float]
    age_s: float | None
    """From the last bar to the answer, if the client said when that was."""


@dataclass(frozen=True, slots=True)
class Told:
    """What one router tells."""

    router: str
    decisions: Sequence[Observation] = ()
    seen: Mapping[str, Seen] = field(default_factory=dict)
    """By the digest of the bundle that saw it."""
    bars: Mapping[str, Candles] = field(default_factory=dict)
    """By symbol: those that this router has not told before."""
    errors: Mapping[str, int] = field(default_factory=dict)
    """By code, since the router began: whoever is told twice counts them once. An error belongs to no variant."""
    dropped: int = 0
    """Decisions that were not told for want of room, since the router began."""
    memory: Mapping[str, float] = field(default_factory=dict)
    """By address of a node, its own or one of a stage: the share of its memory, or of a GPU's in it, that is in use."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What the monitor says to it."""

    is_new: bool
    """It has not heard of this router before: it has lost what it knew, or the router has just begun."""
    lacking: tuple[str, ...]
    """Digests of bundles whose reference it does not have."""


@dataclass(frozen=True, slots=True)
class Learnt:
    """What the monitor has to know of a bundle."""

    version: str
    reference: Reference | None = None
    """What its model saw in training; None: it does not say."""
    horizon_bars: int | None = None
    """Bars that its labels rest on."""
    signal_threshold: float | None = None


def _kind(decision: Decision) -> Kind:
    return Kind(decision.variant, decision.model_version, decision.action, decision.reason, decision.batch_size)


def observations(answers: Iterable[Answered]) -> list[Observation]:
    """Return what is told of each answer."""
    return [
        Observation(
            answer.decision.decision_id,
            answer.decision.symbol,
            answer.decision.timestamp,
            _kind(answer.decision),
            answer.decision.probability,
            answer.latency_ms,
            answer.decision.timings_ms,
            _age(answer),
        )
        for answer in answers
    ]


def _age(answer: Answered) -> float | None:
    last = answer.decision.timestamp
    return None if last is None else (answer.at - last).total_seconds()


def seen_of(answers: Iterable[Answered]) -> dict[str, Seen]:
    """Return what each bundle saw and said, by digest: MOST_SEEN rows that follow each other, from anywhere."""
    by_digest: dict[str, list[Decision]] = {}
    for answer in answers:
        if answer.decision.seen is not None:
            by_digest.setdefault(answer.decision.bundle_digest, []).append(answer.decision)
    return {digest: _seen(_some(decisions)) for digest, decisions in by_digest.items()}


def _some(decisions: Sequence[Decision]) -> Sequence[Decision]:
    """Not always the last: of a batch that asks for its symbols by name, the first ones would never be looked at."""
    start = zlib.crc32(decisions[0].decision_id.encode()) % max(1, len(decisions) - MOST_SEEN + 1)
    return decisions[start : start + MOST_SEEN]


def _seen(decisions: Sequence[Decision]) -> Seen:
    features = np.stack([decision.seen for decision in decisions if decision.seen is not None])
    scores = np.array([decision.probability for decision in decisions], dtype=np.float32)
    return Seen(
        symbols=tuple(decision.symbol for decision in decisions),
        values=np.column_stack([features, scores]),
        decision_ids=tuple(decision.decision_id for decision in decisions),
    )
