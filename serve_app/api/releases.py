"""The calls that show and change releases. Changing needs the control key; showing needs what signals need."""

import hmac
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel

from serve_app.api.front import bearer_of
from serve_app.api.responses import respond
from serve_app.control import Change, Control
from serve_app.documentation import request_body
from serve_app.errors import ControlOff, MalformedRequest, Unauthorized
from serve_app.router.releases import Step, promoted, rethought, split
from serve_app.schemas import Limits, parse_json, structure
from serve_app.schemas.releases import ChangeBody, PreviewBody, SplitChangeBody, ThresholdsBody

CONTROL_KEY = "SIGNALGRAPH_CONTROL_KEY"
"""Environment variable: the key that may change releases; unset, nobody may."""
RELEASE_BODIES = (ChangeBody, PreviewBody, SplitChangeBody, ThresholdsBody)
_LIMITS = Limits(max_body_bytes=1 << 20, max_bars=0, max_batch_requests=0)


def split_of(body: Any) -> Change:
    """Return the change that a body describes."""
    return split(body.candidate_share, body.salt, body.pins)


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
        body = structure(PreviewBody, parse_json(await request.body(), _LIMITS))
        return respond({"moves": await self._control.preview(split_of(body), body.symbols)})

    async def rollback(self, request: Request) -> Response:
        """End what the candidate answers; when it answers nobody, undo the last promotion."""
        body = structure(ChangeBody, parse_json(await request.body(), _LIMITS))
        return respond(await self._control.rollback(body.who, body.why))

    def changes(
        self, step: Step, model: type[ChangeBody], change: Callable[[Any], Change]
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the handler of one kind of change."""

        async def endpoint(request: Request) -> Response:
            body = structure(model, parse_json(await request.body(), _LIMITS))
            return respond(await self._control.change(step, change(body), body.who, body.why))

        endpoint.__name__ = str(step)
        return endpoint


def release_router(
    routes: ReleaseRoutes, known: Sequence[Any], responses: dict[int | str, dict[str, Any]]
) -> APIRouter:
    """Return the routes of `/v1/releases`; those that only show ask what `known` asks."""
    router = APIRouter(prefix="/v1/releases", tags=["releases"], responses=responses)
    router.get("", dependencies=known)(routes.show)
    router.get("/assignment", dependencies=known)(routes.assignment)
    router.post(":preview", dependencies=known, openapi_extra=_body(PreviewBody, {"candidate_share": 0.5}))(
        routes.preview
    )
    for name, endpoint, model, example in (
        ("split", routes.changes(Step.SPLIT, SplitChangeBody, split_of), SplitChangeBody, {"candidate_share": 0.2}),
        (
            "thresholds",
            routes.changes(Step.THRESHOLDS, ThresholdsBody, lambda body: rethought(body.variant, body.thresholds)),
            ThresholdsBody,
            {"variant": "candidate", "thresholds": {"signal_threshold": 0.8}},
        ),
        ("promote", routes.changes(Step.PROMOTE, ChangeBody, lambda _: promoted), ChangeBody, {}),
        ("rollback", routes.rollback, ChangeBody, {}),
    ):
        described = _body(model, {**example, "who": "ada", "why": "evidence of 3,000 bars"})
        router.post(f":{name}", dependencies=[Depends(routes.authorize)], openapi_extra=described)(endpoint)
    return router


def _body(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    return request_body(model, {"example": example})
