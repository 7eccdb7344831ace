"""One answered request, as the monitor sees it."""

from collections.abc import Mapping
from dataclasses import dataclass

from serve_app.errors import ServeAppError
from serve_app.types import Action, Decision, Reason, VariantName


@dataclass(frozen=True, slots=True)
class Observation:
    """A decision, or an error that was answered instead: then `error` is its code and there is no variant."""

    latency_ms: float
    variant: VariantName | None = None
    model_version: str | None = None
    action: Action | None = None
    reason: Reason | None = None
    error: str | None = None
    batch_size: int = 0
    timings_ms: Mapping[str, float] | None = None


def observe(answer: Decision | ServeAppError, latency_ms: float) -> Observation:
    """Return what the monitor needs of an answer."""
    if isinstance(answer, ServeAppError):
        return Observation(latency_ms, error=answer.code)
    return Observation(
        latency_ms,
        variant=answer.variant,
        model_version=answer.model_version,
        action=answer.action,
        reason=answer.reason,
        batch_size=answer.batch_size,
        timings_ms=answer.timings_ms,
    )
