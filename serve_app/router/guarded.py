"""Guarded promotion: how one step follows another, and what trips a guardrail."""

from collections.abc import Callable

from serve_app.errors import ReleaseRefused
from serve_app.router.changes import promoted
from serve_app.router.plan import Guardrails, Plan
from serve_app.router.releases import Release, Step
from serve_app.types import Vitals

FEW = 5
"""Failures that are no rate yet."""


def begun(plan: Plan) -> Callable[[Release], Release]:
    """Return the change that puts the candidate into the shadow, as the first step of a plan."""

    def change(release: Release) -> Release:
        if release.candidate is None:
            raise ReleaseRefused("there is no candidate to promote")
        return release.quiet().changed(shadow=True, shadow_share=1.0, plan=plan.model_copy(update={"at": 0}))

    return change


def next_step(plan: Plan) -> Step:
    """Return what the ledger shall call the step after this one."""
    return Step.PROMOTE if plan.at + 1 == plan.promotes_at else Step.ADVANCE


def advanced(release: Release) -> Release:
    """Return the release of the next step of its plan; after the last one it has none."""
    plan = release.plan
    if plan is None:
        raise ReleaseRefused("no guarded promotion is under way")
    after = plan.model_copy(update={"at": plan.at + 1})
    if after.at < plan.promotes_at:
        return release.changed(assignment=plan.steps(release.assignment.salt)[after.at], plan=after)
    if after.at == plan.promotes_at:
        return promoted(release).changed(plan=after)
    return release.changed(plan=None)


def tripped(guardrails: Guardrails, watched: Vitals, production: Vitals | None) -> str | None:
    """Return which guardrail does not hold, in a sentence, or None. `production`: None when it is the one watched."""
    asked = watched.answered + watched.abstained
    if too_many(watched.abstained, asked, guardrails.max_abstain_rate):
        return f"{watched.abstained:,} of {asked:,} abstained, more than {guardrails.max_abstain_rate:.1%}"
    if production is None or min(watched.answered, production.answered) < guardrails.min_answers:
        return None
    if watched.p95_ms and production.p95_ms and watched.p95_ms > guardrails.max_p95_ratio * production.p95_ms:
        return (
            f"95 % take up to {watched.p95_ms:.1f} ms, more than {guardrails.max_p95_ratio:g} times the"
            f" {production.p95_ms:.1f} ms of production"
        )
    return None


def too_many(failed: int, asked: int, rate: float) -> bool:
    """Whether a rate is exceeded, by more than a few."""
    return failed > FEW and failed > rate * asked
