"""Decisions, and what a router would tell of them."""

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import count

import numpy as np

from serve_app.errors import ServeAppError
from serve_app.monitor import Gathering, MonitorState, Told
from serve_app.types import Action, Decision, Status, VariantName

_IDS = count()
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
"""When all of it is answered."""


def decision(**changes: object) -> Decision:
    """One decision of production, under an id of its own."""
    given: dict[str, object] = {
        "decision_id": f"d{next(_IDS)}",
        "symbol": "IBM",
        "timestamp": datetime(2013, 3, 1, tzinfo=UTC),
        "status": Status.OK,
        "reason": None,
        "probability": 0.6,
        "action": Action.HOLD,
        "variant": VariantName.PRODUCTION,
        "model_version": "v1.0",
        "bundle_digest": "sha256:0",
        "epoch": 1,
        "batch_size": 1,
        "timings_ms": {"model": 2.0},
        **changes,
    }
    if given["reason"] is not None:
        given |= {"status": Status.ABSTAIN, "probability": None, "batch_size": 0}
    return Decision(**given)  # type: ignore[arg-type]


def router(name: str = "a", room: int = 10_000, memory: float = 0.25) -> Gathering:
    return Gathering(name, room, lambda: {f"node of {name}": memory}, lambda: NOW)


def told(answers: Iterable[Decision | ServeAppError], latency_ms: float = 1.0, by: Gathering | None = None) -> Told:
    """What a router tells that has answered so."""
    gathering = by or router()
    gathering.record(list(answers), latency_ms)
    said = gathering.take()
    gathering.arrived()
    return said


def state(window: int = 10_000) -> MonitorState:
    return MonitorState(window, np.random.default_rng(0))
