"""The calls that say what is known of a candidate."""

import asyncio

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from serve_app.api.responses import respond
from serve_app.evidence import Experiments


def experiment_router(experiments: Experiments) -> APIRouter:
    """Return the routes of `/v1/experiments`. What they do takes its time, in a thread."""
    router = APIRouter(prefix="/v1/experiments", tags=["experiments"])

    @router.get("")
    async def known() -> Response:
        """List the pairs of bundles that were production and candidate, oldest first."""
        return respond({"experiments": await asyncio.to_thread(experiments.list)})

    @router.get("/{name}", responses={200: {"content": {"text/html": {}}}})
    async def report(name: str, request: Request) -> Response:
        """Say whether the candidate is better: the verdict and what it rests on, as JSON, or as a page for browsers."""
        found = await asyncio.to_thread(experiments.report, name)
        if "text/html" not in request.headers.get("Accept", ""):
            return respond(found)
        from serve_app.evidence.page import page  # noqa: PLC0415  matplotlib is heavy, and seldom needed

        return HTMLResponse(await asyncio.to_thread(page, found))

    return router
