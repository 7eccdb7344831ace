"""The guard: moves a guarded promotion on, step by step, and back when a guardrail trips.

Every router has one, and none leads: each writes to the ledger only what follows the epoch that it has looked at, so of
two that see the same, the first is recorded and the other finds it done.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from serve_app.config import AlertName
from serve_app.errors import EvidenceRefused, MonitorUnavailable, ParityError, ReleaseRefused, ServeAppError
from serve_app.monitor import AlertState, failures
from serve_app.router.guarded import advanced, next_step, too_many, tripped
from serve_app.router.plan import Plan
from serve_app.router.releases import Author, Entry, Ledger, Step
from serve_app.service import PROVE_TIMEOUT_S
from serve_app.types import Advice, VariantName, Vitals

LOOK_S = 2.0
EVIDENCE_S = 60.0
"""How long a step that waits for evidence waits before it asks again: that reads the whole experiment."""
GUARD = "guard"
"""Who, in the ledger."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Senses:
    """What the guard looks at."""

    in_force: Callable[[], Entry]
    vitals: Callable[[int, VariantName], Awaitable[Vitals]]
    """Of a variant in an epoch."""
    monitor: Callable[[], Awaitable[Mapping[str, Any]]]
    """Its snapshot: what went wrong since the graph began, and what fires. Raises MonitorUnavailable."""
    parity: Callable[[VariantName], Awaitable[None]]
    """Lets a variant reproduce its golden cases; raises ParityError."""
    version: Callable[[VariantName], str]
    """The model version of a variant."""
    evidence: Callable[[Entry], Awaitable[Mapping[str, Any]]]
    """The report of the experiment that an entry belongs to."""


def alarms(monitor: Mapping[str, Any], roll_back: Collection[AlertName], entry: Entry, version: str) -> list[str]:
    """Return what a snapshot's alerts say that began to fire under an entry, and may roll its plan back.

    `version` is that of the variant that is watched: what was under its name before may still be told of.
    """
    plan = entry.release.plan
    return [
        f"{alert['alert']}: {alert['message']}"
        for alert in monitor["alerts"]
        if plan is not None
        and alert["state"] == AlertState.FIRING
        and alert["alert"] in roll_back
        and alert["subject"] in (None, plan.watched)
        and alert["model_version"] in (None, version)
        and alert["since"] >= entry.at
    ]


class Guard:
    """Watches the plan of the release in force, if it has one."""

    def __init__(
        self,
        ledger: Ledger,
        senses: Senses,
        roll_back: Collection[AlertName],
        catch_up: Callable[[], Awaitable[None]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`roll_back`: the alerts that end a guarded promotion."""
        self._ledger = ledger
        self._senses = senses
        self._roll_back = roll_back
        self._catch_up = catch_up
        self._clock = clock
        self._judged_last = (0, clock())
        """The epoch that was judged last, and when."""
        self._errors: tuple[int, tuple[int, int]] | None = None
        """The epoch, and what had been asked and gone wrong when it was first looked at."""

    async def watch_forever(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self.look()
            except ServeAppError as error:
                log.warning("the guard could not look: %s", error)
            except Exception:  # whatever it was: a guard that ended would take its router with it
                log.exception("the guard could not look")

    async def look(self) -> None:
        """Go back when a guardrail trips, on when a step is over. Raises JournalUnavailable and the like."""
        entry = self._senses.in_force()
        plan = entry.release.plan
        if plan is None:
            return
        watched = await self._senses.vitals(entry.epoch, plan.watched)
        if reason := await self._wrong(entry, plan, watched):
            await self._back(entry, reason)
        elif watched.answered >= plan.guardrails.min_answers and self._is_over(entry, plan):
            await self._advance(entry, plan)

    async def _back(self, entry: Entry, reason: str) -> None:
        await self._record(entry, reason, lambda author: self._ledger.rollback(author, follows=entry.epoch))

    def _is_over(self, entry: Entry, plan: Plan) -> bool:
        return (self._clock() - entry.at).total_seconds() >= plan.step_s

    async def _wrong(self, entry: Entry, plan: Plan, watched: Vitals) -> str | None:
        try:
            async with asyncio.timeout(PROVE_TIMEOUT_S):
                await self._senses.parity(plan.watched)
        except ParityError as error:
            return f"parity: {error}"
        except Exception as error:  # noqa: BLE001  a stage that is away, slow or broken: those asked meanwhile abstained
            log.warning("parity could not be checked: %r", error)
        production = None
        if plan.watched is VariantName.CANDIDATE:
            production = await self._senses.vitals(entry.epoch, VariantName.PRODUCTION)
        return tripped(plan.guardrails, watched, production) or await self._heard(entry, plan)

    async def _heard(self, entry: Entry, plan: Plan) -> str | None:
        """Return what the monitor has against going on, if anything and if it can be asked."""
        try:
            known = await self._senses.monitor()
        except MonitorUnavailable as error:
            log.warning("alerts and errors could not be looked at: %s", error)
            return None
        version = self._senses.version(plan.watched)
        return "; ".join(alarms(known, self._roll_back, entry, version)) or self._failing(entry, plan, *failures(known))

    def _failing(self, entry: Entry, plan: Plan, errors: int, asked: int) -> str | None:
        """Compare the errors since the epoch was first seen with what was asked since."""
        if self._errors is None or self._errors[0] != entry.epoch or self._errors[1][1] > asked:
            self._errors = entry.epoch, (errors, asked)
        before = self._errors[1]
        failed, since = errors - before[0], asked - before[1]
        if too_many(failed, since, plan.guardrails.max_error_rate):
            return f"{failed:,} of {since:,} requests failed, more than {plan.guardrails.max_error_rate:.1%}"
        return None

    async def _advance(self, entry: Entry, plan: Plan) -> None:
        step, why = next_step(plan), f"{plan}: no guardrail tripped"
        if plan.watched is VariantName.CANDIDATE:
            if not self._may_judge(entry):
                return
            advice, objection = await self._judged(entry)
            if objection:
                await self._back(entry, objection)
                return
            if step is Step.PROMOTE and plan.wait_for_evidence and advice is not Advice.PROMOTE:
                return
        await self._record(
            entry, why, lambda author: self._ledger.change(step, advanced, author, follows=entry.epoch, by_plan=True)
        )

    def _may_judge(self, entry: Entry) -> bool:
        now = self._clock()
        epoch, last = self._judged_last
        if epoch == entry.epoch and (now - last).total_seconds() < EVIDENCE_S:
            return False
        self._judged_last = entry.epoch, now
        return True

    async def _judged(self, entry: Entry) -> tuple[Advice, str | None]:
        """Return what the evidence advises, and what it has against going on, if anything."""
        try:
            report = await self._senses.evidence(entry)
        except EvidenceRefused as error:
            log.warning("there is no evidence to go by: %s", error)
            return Advice.NOT_YET, None
        advice = Advice(report["verdict"]["advice"])
        rejected = report["verdict"]["because"] if advice is Advice.REJECT else ""
        return advice, "; ".join(report["doubts"]) or rejected or None

    async def _record(self, entry: Entry, why: str, write: Callable[[Author], Entry]) -> None:
        try:
            made = await asyncio.to_thread(write, Author(GUARD, why, self._clock()))
        except ReleaseRefused as error:
            log.info("epoch %d: %s", entry.epoch, error)  # another router was first, or somebody decided otherwise
        else:
            log.warning("epoch %d: %s (%s)", made.epoch, made.step, why)
        await self._catch_up()
