"""The calls that show and change releases. Changing needs the control key; showing needs what signals need."""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from serve_app.api.body import described, read
from serve_app.api.front import bearer_of
from serve_app.api.responses import respond
from serve_app.control import Change, Control
from serve_app.errors import ControlOff, MalformedRequest, Unauthorized
from serve_app.router.changes import promoted, rethought, shadowed, split
from serve_app.router.guarded import begun
from serve_app.router.releases import Step
from serve_app.schemas.releases import (
    CandidateBody,
    ChangeBody,
    PreviewBody,
    PromoteBody,
    ShadowBody,
    SplitChangeBody,
    ThresholdsBody,
)

CONTROL_KEY = "SIGNALGRAPH_CONTROL_KEY"
"""Environment variable: the key that may change releases; unset, nobody may."""
RELEASE_BODIES = (CandidateBody, ChangeBody, PreviewBody, PromoteBody, ShadowBody, SplitChangeBody, ThresholdsBody)


def split_of(body: Any) -> Change:
    """Return the change that a body describes."""
    return split(body.candidate_share, body.salt, body.pins)


def shadow_of(body: Any) -> Change:
    """Return the change that a body describes."""
    return shadowed(body.shadow, body.share)


class ReleaseRoutes:
    """The handlers, over the control of one graph."""

    def __init__(self, control: Control, key_hash: str | None) -> None:
        self._control = control
        self._key_hash = key_hash

    def authorize(self, request: Request) -> None:
        """Let only the control key pass."""
        if self._key_hash is None:
            raise ControlOff(f"nobody may change releases here: set {CONTROL_KEY} before the graph is started")
        if not hmac.compare_digest(bearer_of(request), self._key_hash):
            raise Unauthorized("changing a release needs the control key: send `Authorization: Bearer <key>`")

    async def show(self) -> Response:
        """Show what is in force, and how it came to be, oldest first."""
        history = await self._control.history()
        return respond({"in_force": history[-1] if history else None, "history": history})

    async def assignment(self, symbol: str = "") -> Response:
        """Show which variant answers a symbol now."""
        if not symbol:
            raise MalformedRequest("which symbol? ask /v1/releases/assignment?symbol=IBM")
        return respond({"symbol": symbol, "variant": await self._control.variant(symbol)})

    async def preview(self, request: Request) -> Response:
        """Show which symbols a split would move."""
        body = await read(request, PreviewBody)
        return respond({"moves": await self._control.preview(split_of(body), body.symbols)})

    async def candidate(self, request: Request) -> Response:
        """Load another version beside what serves, and make it the candidate, which answers nobody yet."""
        body = await read(request, CandidateBody)
        return respond(await self._control.candidate(body.version, body.who, body.why, body.follows))

    async def promote(self, request: Request) -> Response:
        """Make the candidate production: at once, or by the steps of a plan, and back when a guardrail trips."""
        body = await read(request, PromoteBody)
        step, change = (Step.PROMOTE, promoted) if body.plan is None else (Step.GUARD, begun(body.plan))
        by_plan = body.plan is not None
        return respond(await self._control.change(step, change, body.who, body.why, body.follows, by_plan))

    async def rollback(self, request: Request) -> Response:
        """End what the candidate answers; when it answers nobody, undo the last promotion."""
        body = await read(request, ChangeBody)
        return respond(await self._control.rollback(body.who, body.why, body.follows))

    def changes(
        self, step: Step, model: type[ChangeBody], change: Callable[[Any], Change]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of one kind of change."""

        async def endpoint(request: Request) -> Response:
            body = await read(request, model)
            return respond(await self._control.change(step, change(body), body.who, body.why, body.follows))

        endpoint.__name__ = str(step)
        return endpoint


def release_router(
    routes: ReleaseRoutes, known: Sequence[Any], responses: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """Return the routes of `/v1/releases`; those that only show ask what `known` asks."""
    router = APIRouter(prefix="/v1/releases", tags=["releases"], responses=responses)
    router.get("", dependencies=known)(routes.show)
    router.get("/assignment", dependencies=known)(routes.assignment)
    router.post(":preview", dependencies=known, openapi_extra=described(PreviewBody, {"candidate_share": 0.5}))(
        routes.preview
    )
    for name, endpoint, model, example in (
        ("split", routes.changes(Step.SPLIT, SplitChangeBody, split_of), SplitChangeBody, {"candidate_share": 0.2}),
        ("shadow", routes.changes(Step.SHADOW, ShadowBody, shadow_of), ShadowBody, {"shadow": True}),
        (
            "thresholds",
            routes.changes(Step.THRESHOLDS, ThresholdsBody, lambda body: rethought(body.variant, body.thresholds)),
            ThresholdsBody,
            {"variant": "candidate", "thresholds": {"signal_threshold": 0.8}},
        ),
        ("promote", routes.promote, PromoteBody, {}),
        ("rollback", routes.rollback, ChangeBody, {}),
        ("candidate", routes.candidate, CandidateBody, {"version": "v1.2"}),
    ):
        text = described(model, {**example, "who": "ada", "why": "evidence of 3,000 bars"})
        router.post(f":{name}", dependencies=[Depends(routes.authorize)], openapi_extra=text)(endpoint)
    return router
