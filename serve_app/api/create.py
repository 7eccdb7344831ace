"""The ASGI application: FastAPI around the handlers, and past it for the hottest of them."""

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from serve_app.api.dashboard import Page, dashboard_router
from serve_app.api.decisions import decision_router
from serve_app.api.experiments import experiment_router
from serve_app.api.front import Front
from serve_app.api.hot import Handler, HotRoutes
from serve_app.api.outcomes import OUTCOME_BODIES, outcome_router
from serve_app.api.releases import RELEASE_BODIES, ReleaseRoutes, release_router
from serve_app.api.responses import on_bug, on_error, on_http_error
from serve_app.api.routes import Routes
from serve_app.dashboard import Feed, View
from serve_app.documentation import describe, request_body
from serve_app.errors import ServeAppError
from serve_app.schemas import (
    STREAM,
    BatchAnswer,
    BatchBody,
    DecisionBody,
    ErrorBody,
    PredictAnswer,
    PredictBody,
    SignalBody,
)

_MISSING: dict[int | str, dict[str, Any]] = {status: {"model": ErrorBody} for status in (404, 409)}


def _guarded(routes: Routes, handler: Handler) -> Handler:
    """Return a handler that never raises, under the name and description of the one that may."""

    @wraps(handler)
    async def endpoint(request: Request) -> Response:
        return await routes.guarded(handler, request)

    return endpoint


def create_api(front: Front, clock: Callable[[], float] = time.perf_counter) -> HotRoutes:
    """Return the ASGI application; nothing runs until it is served."""
    routes = Routes(front, clock)
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody} for status in (400, 401, 408, 413, 422, 429, 503)
    }
    examples = front.examples
    hot: dict[str, Handler] = {}
    asking = APIRouter(tags=["signals"], responses=errors)
    for path, handler, body, answer in (
        ("/v1/signals", routes.signals, request_body(SignalBody, examples.signals), DecisionBody),
        ("/v1/signals:batch", routes.signals_batch, request_body(BatchBody, examples.batch, STREAM), BatchAnswer),
        ("/predict", routes.predict, request_body(PredictBody, examples.predict), PredictAnswer),
    ):
        hot[path] = endpoint = _guarded(routes, handler)
        asking.post(path, responses={200: {"model": answer}}, openapi_extra=body)(endpoint)
    known = [Depends(routes.authorize)]
    asking.get("/v1/monitor", dependencies=known)(routes.monitor)
    asking.get("/v1/alerts", dependencies=known)(routes.alerts)
    api = FastAPIOffline(title="SignalGraph", redoc_url=None, lifespan=front.lifespan, version="1")
    api.include_router(asking)
    if front.past is not None:
        for router in (decision_router(front.past), outcome_router(front.past.report)):
            api.include_router(router, dependencies=known, responses=errors | _MISSING)
    if front.experiments is not None:
        api.include_router(experiment_router(front.experiments), dependencies=known, responses=errors | _MISSING)
    if front.control is not None:
        api.include_router(release_router(ReleaseRoutes(front.control, front.control_key_hash), known, errors))
    if front.dashboard is not None:
        feed = Feed(View(front.dashboard, front.control, front.experiments).now)
        api.include_router(dashboard_router(feed, front.dashboard), dependencies=known, responses=errors)
        api.mount("/dashboard", Page(), "dashboard")
    api.get("/v2/health/live", tags=["health"])(routes.live)
    api.get(
        "/v2/health/ready",
        tags=["health"],
        responses={503: {"description": "a variant is not ready; the body says why"}},
    )(routes.ready)
    api.add_exception_handler(ServeAppError, on_error)
    api.add_exception_handler(HTTPException, on_http_error)
    api.add_exception_handler(Exception, on_bug)
    describe(
        api,
        (SignalBody, BatchBody, PredictBody, *RELEASE_BODIES, *OUTCOME_BODIES),
        with_keys=bool(front.api_key_hashes),
    )
    return HotRoutes(api, hot)
