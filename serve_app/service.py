"""The signal service: requests in, decisions out. Assigns symbols to variants and answers for those that may serve."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from serve_app.errors import InvalidPosition, ServeAppError
from serve_app.parity import check_golden
from serve_app.pipeline import Pipeline
from serve_app.router import FIRST_EPOCH, Assignment
from serve_app.types import (
    FLAT,
    Action,
    Bars,
    Decision,
    Outcome,
    Position,
    Reason,
    Row,
    SignalRequest,
    Status,
    VariantName,
)

DEFECT = "internal error; the service's log has the details"
PROVE_TIMEOUT_S = 10.0
NOT_YET = "its golden cases have not been reproduced yet"
_DECISIONS = uuid.UUID("6f1c5a0e-3f0b-5e7c-9d7e-5b1f4c2f9a11")


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that cannot be answered, with what could still be read of it."""

    error: ServeAppError
    symbol: str | None = None
    position: Position = FLAT


@dataclass(frozen=True, slots=True)
class Lane:
    """One variant: its pipeline, and how rows get into a batch of it."""

    pipeline: Pipeline
    submit: Callable[[Row], Awaitable[Outcome]]
    """May raise Overloaded; abstains for everything else."""


def decision_id(request_id: str, index: int) -> str:
    """Derive the id of a decision, so that a request that a proxy sends twice is decided under one id."""
    return str(uuid.uuid5(_DECISIONS, f"{request_id}/{index}"))


def _timestamp(request: SignalRequest) -> datetime | None:
    """When the last bar was, if the client said."""
    if not isinstance(request.history, Bars):
        return request.history.timestamp
    last: datetime = request.history.timestamp[-1].item()
    return last.replace(tzinfo=UTC)


class SignalService:
    """Answers from one epoch: an assignment of symbols and a lane for each variant."""

    def __init__(self, lanes: Mapping[VariantName, Lane], assignment: Assignment, epoch: int = FIRST_EPOCH) -> None:
        self._lanes = dict(lanes)
        self._assignment = assignment
        self._epoch = epoch
        self._unproven = dict.fromkeys(self._lanes, NOT_YET)

    @property
    def production(self) -> Pipeline:
        """The pipeline of the production variant."""
        return self._lanes[VariantName.PRODUCTION].pipeline

    def readiness(self) -> dict[str, str | None]:
        """Return, for each variant, why it may not serve yet, or None."""
        return {name: self._unproven.get(name) for name in self._lanes}

    async def prove(self) -> bool:
        """Let every variant that may not serve yet reproduce its golden cases; return whether all have."""
        await asyncio.gather(*map(self._prove, list(self._unproven)))
        return not self._unproven

    async def _prove(self, name: VariantName) -> None:
        try:
            async with asyncio.timeout(PROVE_TIMEOUT_S):
                await check_golden(self._lanes[name].pipeline)
        except TimeoutError:
            self._unproven[name] = f"its stages have not answered for {PROVE_TIMEOUT_S:g} s"
        except ServeAppError as error:
            self._unproven[name] = f"{type(error).__name__}: {error}"
        except Exception as error:
            # Anybody may read the reason; what a library says of itself is for the log.
            log.exception("%s is not proven", name)
            self._unproven[name] = type(error).__name__
        else:
            del self._unproven[name]

    async def decide(self, request_id: str, requests: Sequence[SignalRequest | Refused]) -> list[Decision | Refused]:
        """Answer requests in their order; a request that cannot be answered harms no other.

        The error of a refusal carries `fallback_action` in its detail.
        """
        answers = (self._decide(decision_id(request_id, i), request) for i, request in enumerate(requests))
        return await asyncio.gather(*answers)

    async def _decide(self, identity: str, request: SignalRequest | Refused) -> Decision | Refused:
        if isinstance(request, Refused):
            return self._with_fallback(request)
        name = self._assignment.variant(request.symbol)
        pipeline = self._lanes[name].pipeline
        try:
            outcome = await self._outcome(name, pipeline.row(request))
        except ServeAppError as error:
            return self._with_fallback(Refused(error, request.symbol, request.position))
        except Exception:
            log.exception("decision %s: a defect", identity)
            return self._with_fallback(Refused(ServeAppError(DEFECT), request.symbol, request.position))
        return Decision(
            decision_id=identity,
            symbol=request.symbol,
            timestamp=_timestamp(request),
            status=Status.OK if outcome.reason is None else Status.ABSTAIN,
            reason=outcome.reason,
            probability=outcome.probability,
            action=outcome.action,
            variant=name,
            model_version=pipeline.bundle.version,
            bundle_digest=pipeline.bundle.digest,
            epoch=self._epoch,
            batch_size=outcome.batch_size,
            timings_ms=outcome.timings_ms,
        )

    async def _outcome(self, name: VariantName, row: Row) -> Outcome:
        lane = self._lanes[name]
        if name in self._unproven:
            return lane.pipeline.abstain(row, Reason.MODEL_UNAVAILABLE)
        return await lane.submit(row)

    def _with_fallback(self, refused: Refused) -> Refused:
        """Add the action that needs no model: the time exit of a LONG position, else HOLD."""
        name = self._assignment.variant(refused.symbol) if refused.symbol else VariantName.PRODUCTION
        try:
            action = self._lanes[name].pipeline.fallback_action(refused.position)
        except InvalidPosition:
            action = Action.HOLD
        # A copy: one error may have reached several requests, whose positions differ.
        detail = {**refused.error.detail, "fallback_action": action}
        return replace(refused, error=type(refused.error)(str(refused.error), **detail))
