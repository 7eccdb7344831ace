"""The signal service: requests in, decisions out. Assigns symbols to variants and answers for those that may serve."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import cast

from serve_app.errors import InvalidPosition, ServeAppError, SpoolUnavailable
from serve_app.identity import Identify, timestamp_of
from serve_app.parity import check_golden
from serve_app.pipeline import Pipeline
from serve_app.router import FIRST_EPOCH, Assignment
from serve_app.shadow import Answered, Offer
from serve_app.types import (
    FLAT,
    Action,
    Decision,
    Outcome,
    Position,
    Reason,
    Row,
    SignalRequest,
    Status,
    VariantName,
    other_of,
)

DEFECT = "internal error; the service's log has the details"
PROVE_TIMEOUT_S = 10.0
NOT_YET = "its golden cases have not been reproduced yet"

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
    submit: Callable[[Sequence[Row]], Awaitable[list[Outcome]]]
    """Answers rows in their order. May raise Overloaded; abstains for everything else."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that may join a batch: its place in the call, who answers it, and its row."""

    place: int
    request: SignalRequest
    variant: VariantName
    row: Row


Keep = Callable[[Sequence[tuple[Decision, Row]]], None]
"""Writes down decisions and the rows that they were made from, without waiting for anybody."""


def _forget(_: Sequence[tuple[Decision, Row]]) -> None:
    """Nobody keeps them."""


def _refused(error: Exception, request: SignalRequest) -> Refused:
    if not isinstance(error, ServeAppError):
        log.error("a request for %s: a defect", request.symbol, exc_info=error)
        error = ServeAppError(DEFECT)
    return Refused(error, request.symbol, request.position)


class SignalService:
    """Answers from one epoch: an assignment of symbols and a lane for each variant."""

    def __init__(
        self,
        lanes: Mapping[VariantName, Lane],
        assignment: Assignment,
        epoch: int = FIRST_EPOCH,
        keep: Keep = _forget,
        offer: Offer | None = None,
    ) -> None:
        """`keep` writes decisions down before they are answered; what it raises SpoolUnavailable for is refused.

        `offer` takes what the other variant shall score too.
        """
        self._lanes = dict(lanes)
        self._keep = keep
        self._offer = offer
        self._assignment = assignment
        self._epoch = epoch
        self._unproven = dict.fromkeys(self._lanes, NOT_YET)

    @property
    def epoch(self) -> int:
        """The epoch that it answers from."""
        return self._epoch

    def followed_by(
        self, lanes: Mapping[VariantName, Lane], assignment: Assignment, epoch: int, offer: Offer | None = None
    ) -> "SignalService":
        """Return the service of another epoch, which believes the proofs of the bundles that this one has proven."""
        proven = {lane.pipeline.bundle.digest for name, lane in self._lanes.items() if name not in self._unproven}
        after = SignalService(lanes, assignment, epoch, self._keep, offer)
        after._unproven = {n: NOT_YET for n, lane in lanes.items() if lane.pipeline.bundle.digest not in proven}
        return after

    @property
    def production(self) -> Pipeline:
        """The pipeline of the production variant."""
        return self.pipeline(VariantName.PRODUCTION)

    def pipeline(self, name: VariantName) -> Pipeline:
        """Return the pipeline of a variant that there is."""
        return self._lanes[name].pipeline

    def feature_list(self, symbol: str) -> Sequence[str]:
        """Return the features of the bundle that answers for a symbol, by which rows of numbers are told from bars."""
        return self.pipeline(self._assignment.variant(symbol)).bundle.config.feature_list

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

    async def decide(self, identify: Identify, requests: Sequence[SignalRequest | Refused]) -> list[Decision | Refused]:
        """Answer requests in their order; a request that cannot be answered harms no other.

        The error of a refusal carries `fallback_action` in its detail.
        """
        answers: list[Decision | Refused | None] = [None] * len(requests)
        shares: dict[VariantName, list[_Asked]] = {}
        for place, request in enumerate(requests):
            asked = self._asked(place, request)
            if isinstance(asked, Refused):
                answers[place] = self.with_fallback(asked)
            else:
                shares.setdefault(asked.variant, []).append(asked)
        made: list[tuple[_Asked, Decision]] = []
        for asked, outcome in await self._outcomes(shares):
            answer = self._answer(identify(asked.place, asked.request), asked, outcome)
            answers[asked.place] = answer
            if isinstance(answer, Decision):
                made.append((asked, answer))
        if made:
            self._write_down(made, answers)
        return cast("list[Decision | Refused]", answers)

    def _write_down(self, made: Sequence[tuple[_Asked, Decision]], answers: list[Decision | Refused | None]) -> None:
        """Keep what was decided, and offer it to the shadow; what cannot be kept is not answered."""
        try:
            self._keep([(decision, asked.row) for asked, decision in made])
        except SpoolUnavailable as error:
            for asked, _ in made:
                answers[asked.place] = self.with_fallback(_refused(error, asked.request))
        else:
            self._shadow(made)

    def _shadow(self, made: Sequence[tuple[_Asked, Decision]]) -> None:
        """Offer to the other variant what it could score."""
        if self._offer is None:
            return
        able = {other_of(name): lane.pipeline for name, lane in self._lanes.items() if name not in self._unproven}
        answered = [
            Answered(decision, asked.request, other_of(asked.variant), able[asked.variant])
            for asked, decision in made
            if decision.status is Status.OK and asked.variant in able
        ]
        if answered:
            self._offer(answered)

    def _asked(self, place: int, request: SignalRequest | Refused) -> _Asked | Refused:
        if isinstance(request, Refused):
            return request
        try:
            name = self._assignment.variant(request.symbol)
            return _Asked(place, request, name, self._lanes[name].pipeline.row(request))
        except Exception as error:  # noqa: BLE001  whatever validation raises, the other requests are answered
            return _refused(error, request)

    async def _outcomes(
        self, shares: Mapping[VariantName, Sequence[_Asked]]
    ) -> Iterable[tuple[_Asked, Outcome | Exception]]:
        """Ask each variant for its share, all at once."""
        if len(shares) == 1:  # nearly always; a task of its own would cost more than the rest of this method
            ((name, share),) = shares.items()
            return zip(share, await self._share(name, share), strict=True)
        results = await asyncio.gather(*(self._share(name, share) for name, share in shares.items()))
        return zip(chain(*shares.values()), chain(*results), strict=True)

    async def _share(self, name: VariantName, share: Sequence[_Asked]) -> Sequence[Outcome | Exception]:
        lane = self._lanes[name]
        rows = [asked.row for asked in share]
        if name in self._unproven:
            return [lane.pipeline.abstain(row, Reason.MODEL_UNAVAILABLE) for row in rows]
        try:
            return await lane.submit(rows)
        except Exception as error:  # noqa: BLE001  Overloaded, or a defect; the other variant's share is answered
            return [error] * len(rows)

    def _answer(self, identity: str, asked: _Asked, outcome: Outcome | Exception) -> Decision | Refused:
        if isinstance(outcome, Exception):
            return self.with_fallback(_refused(outcome, asked.request))
        bundle = self._lanes[asked.variant].pipeline.bundle
        return Decision(
            decision_id=identity,
            symbol=asked.request.symbol,
            timestamp=timestamp_of(asked.request),
            status=Status.OK if outcome.reason is None else Status.ABSTAIN,
            reason=outcome.reason,
            probability=outcome.probability,
            action=outcome.action,
            variant=asked.variant,
            model_version=bundle.version,
            bundle_digest=bundle.digest,
            epoch=self._epoch,
            batch_size=outcome.batch_size,
            timings_ms=outcome.timings_ms,
            window_crc=outcome.window_crc,
            seen=outcome.seen,
        )

    def with_fallback(self, refused: Refused) -> Refused:
        """Add the action that needs no model: the time exit of a LONG position, else HOLD."""
        name = self._assignment.variant(refused.symbol) if refused.symbol else VariantName.PRODUCTION
        try:
            action = self._lanes[name].pipeline.fallback_action(refused.position)
        except InvalidPosition:
            action = Action.HOLD
        # A copy: one error may have reached several requests, whose positions differ.
        detail = {**refused.error.detail, "fallback_action": action}
        return replace(refused, error=type(refused.error)(str(refused.error), **detail))


class CurrentService:
    """The service of the epoch in force. Each request is answered by the one that it met, from one epoch throughout."""

    def __init__(self, service: SignalService) -> None:
        self.now = service
        """Set it to put another epoch into force."""

    async def decide(self, identify: Identify, requests: Sequence[SignalRequest | Refused]) -> list[Decision | Refused]:
        """See `SignalService.decide`."""
        return await self.now.decide(identify, requests)

    def with_fallback(self, refused: Refused) -> Refused:
        """See `SignalService.with_fallback`."""
        return self.now.with_fallback(refused)

    def feature_list(self, symbol: str) -> Sequence[str]:
        """See `SignalService.feature_list`."""
        return self.now.feature_list(symbol)

    def readiness(self) -> dict[str, str | None]:
        """See `SignalService.readiness`."""
        return self.now.readiness()

    async def prove(self) -> bool:
        """See `SignalService.prove`."""
        return await self.now.prove()
