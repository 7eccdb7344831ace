"""The page for people, and the two calls that it lives on."""

from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import StreamingResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from serve_app.api.responses import respond
from serve_app.dashboard import STATIC, Feed, Sources

_HEADERS = {
    # The library of the charts styles its elements by itself.
    "Content-Security-Policy": "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked again each time, and not sent again unless it has changed: a page of one release never runs with another's.
    "Cache-Control": "no-cache",
}
_STREAM = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class Page(StaticFiles):
    """The page. It holds no secret: whoever looks gives a key to the calls, where one is needed."""

    def __init__(self) -> None:
        super().__init__(directory=STATIC, html=True)

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Serve a file, to be run as it is and framed by nobody."""
        response = await super().get_response(path, scope)
        response.headers.update(_HEADERS)
        return response


def dashboard_router(feed: Feed, sources: Sources) -> APIRouter:
    """Return the routes of `/v1/events` and `/v1/charts`."""
    router = APIRouter(prefix="/v1", tags=["dashboard"])
    content: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}

    @router.get("/events", responses=content)
    async def events() -> Response:
        """Tell what the dashboard shows, each second, as server-sent events. A stream ends soon: connect again."""
        return StreamingResponse(feed.stream(), media_type="text/event-stream", headers=_STREAM)

    @router.get("/charts/{symbol}")
    async def chart(symbol: str) -> Response:
        """Show the latest bars of a symbol, as clients sent them, and what was decided at them, oldest first."""
        return respond(await sources.chart(symbol))

    return router
