"""The HTTP front: routes over a `SignalService`, errors as JSON, documentation with examples that work.

The hot routes read the raw request: a pydantic body parameter costs up to ten times as much on 15 kB.
"""

import hashlib
import hmac
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from serve_app.config import RouterConfig
from serve_app.documentation import Examples, describe, request_body
from serve_app.errors import MalformedRequest, ServeAppError, Unauthorized
from serve_app.monitor import Observation, observe
from serve_app.schemas import (
    REQUEST_ID,
    BatchAnswer,
    BatchBody,
    DecisionBody,
    ErrorBody,
    Limits,
    PredictAnswer,
    PredictBody,
    SignalBody,
    decision_document,
    encode,
    error_document,
    parse_batch,
    parse_json,
    parse_predict,
    parse_signal,
    predict_document,
    what_can_be_read,
)
from serve_app.service import DEFECT, Refused
from serve_app.types import Action, Decision, SignalRequest

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_JSON = "application/json"

log = logging.getLogger(__name__)


class Service(Protocol):
    """What the routes need of a signal service."""

    async def decide(self, request_id: str, requests: Sequence[SignalRequest | Refused]) -> list[Decision | Refused]:
        """Answer requests in their order."""

    def readiness(self) -> dict[str, str | None]:
        """For each variant, why it may not serve yet, or None."""


@dataclass(frozen=True, slots=True)
class Front:
    """What `create_api` puts together."""

    service: Service
    config: RouterConfig
    feature_list: Collection[str]
    """Columns that make `/predict` read its rows as features."""
    examples: Examples
    record: Callable[[Sequence[Observation]], None]
    """Takes what the monitor shall know; never waits."""
    monitor: Callable[[], Awaitable[dict[str, Any]]]
    api_key_hashes: Collection[str] = ()
    """SHA-256 of each key that may ask; empty when no key is needed."""
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None


def hash_key(key: str) -> str:
    """Return what is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def request_id_of(request: Request) -> str:
    """Return the caller's request id, or a new one. Raises MalformedRequest for one that cannot be echoed."""
    given = request.headers.get(REQUEST_ID)
    if given is None:
        return uuid.uuid4().hex
    if not _REQUEST_ID.fullmatch(given):
        raise MalformedRequest(f"{REQUEST_ID} must be 1 to 128 visible ASCII characters")
    return given


class Routes:
    """The handlers, over one `Front`."""

    def __init__(self, front: Front, clock: Callable[[], float]) -> None:
        self._front = front
        self._clock = clock
        config = front.config
        self._limits = Limits(config.max_body_bytes, config.max_bars, config.max_batch_requests)

    async def authorize(self, request: Request) -> None:
        """Let only known keys pass, when keys are needed."""
        if not self._front.api_key_hashes:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = hash_key(key.strip())
        known = [hmac.compare_digest(given, expected) for expected in self._front.api_key_hashes]
        if scheme.lower() != "bearer" or not any(known):
            raise Unauthorized("this service needs an API key: send the header `Authorization: Bearer <key>`")

    async def signals(self, request: Request) -> Response:
        """Decide on one symbol, given its bars or its features."""
        return await self._answer_one(request, self._parse_signal, decision_document)

    async def signals_batch(self, request: Request) -> Response:
        """Decide on many symbols at once; one unusable request fails alone."""
        started, request_id = self._clock(), request_id_of(request)
        document = await self._document(request)
        documents = parse_batch(document, self._limits)
        answers = await self._decide(request_id, [self._parse(self._parse_signal, d) for d in documents], started)
        results = [
            error_document(a.error, request_id) if isinstance(a, Refused) else decision_document(a) for a in answers
        ]
        return _respond({"results": results})

    async def predict(self, request: Request) -> Response:
        """Decide on one symbol, in the shape of older clients."""
        return await self._answer_one(request, self._parse_predict, lambda d: predict_document(d, datetime.now(UTC)))

    async def monitor(self) -> Response:
        """Tell what has been answered: counts, action mix and latency percentiles per variant."""
        return Response(encode(await self._front.monitor()), media_type=_JSON)

    async def live(self) -> dict[str, bool]:
        """Tell that the process answers."""
        return {"live": True}

    async def ready(self) -> Response:
        """Tell whether every variant has reproduced its golden cases; 503 until then."""
        reasons = self._front.service.readiness()
        ready = not any(reasons.values())
        variants = {str(name): {"ready": reason is None, "reason": reason} for name, reason in reasons.items()}
        return Response(encode({"ready": ready, "variants": variants}), 200 if ready else 503, media_type=_JSON)

    async def _answer_one(
        self, request: Request, parse: Callable[[Any], SignalRequest], document: Callable[[Decision], dict[str, Any]]
    ) -> Response:
        started, request_id = self._clock(), request_id_of(request)
        body = await self._document(request)
        (answer,) = await self._decide(request_id, [self._parse(parse, body)], started)
        if isinstance(answer, Refused):
            return _respond_error(request_id, answer.error)
        return _respond(document(answer))

    async def _document(self, request: Request) -> Any:
        """Read and decode a body, and read no more of it than is taken."""
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._limits.max_body_bytes:
                break
        return parse_json(bytes(body), self._limits)

    def _parse_signal(self, document: Any) -> SignalRequest:
        return parse_signal(document, self._limits)

    def _parse_predict(self, document: Any) -> SignalRequest:
        return parse_predict(document, self._limits, self._front.feature_list)

    def _parse(self, parse: Callable[[Any], SignalRequest], document: Any) -> SignalRequest | Refused:
        try:
            return parse(document)
        except ServeAppError as error:
            return Refused(error, *what_can_be_read(document))
        except Exception:
            log.exception("a request could not be parsed: a defect")
            return Refused(ServeAppError(DEFECT), *what_can_be_read(document))

    async def on_error(self, request: Request, error: Exception) -> Response:
        """Answer a request of which nothing could be read, so that no position is known either."""
        assert isinstance(error, ServeAppError)  # noqa: S101  registered for nothing else
        error.detail.setdefault("fallback_action", Action.HOLD)
        self._front.record([observe(error, 0.0)])
        return _respond_error(_error_id(request), error)

    async def _decide(
        self, request_id: str, requests: Sequence[SignalRequest | Refused], started: float
    ) -> list[Decision | Refused]:
        answers = await self._front.service.decide(request_id, requests)
        latency_ms = 1e3 * (self._clock() - started)
        self._front.record([observe(a.error if isinstance(a, Refused) else a, latency_ms) for a in answers])
        return answers


def _respond(document: Any) -> Response:
    return Response(encode(document), media_type=_JSON)


def _respond_error(request_id: str, error: ServeAppError) -> Response:
    headers = {}
    if error.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = str(error.detail.get("retry_after_s", 1))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(error_document(error, request_id)), error.status_code, headers, _JSON)


def _error_id(request: Request) -> str:
    """The id to answer an error with, which may be that the id is unusable."""
    try:
        return request_id_of(request)
    except MalformedRequest:
        return uuid.uuid4().hex


async def _on_bug(request: Request, error: Exception) -> Response:  # noqa: ARG001  what went wrong is in the log only
    """Answer a defect of ours without giving away what it is."""
    bug = ServeAppError(DEFECT, fallback_action=Action.HOLD)
    return _respond_error(_error_id(request), bug)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """Answer what FastAPI itself refuses (no such route, wrong method) in our own shape."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    request_id = _error_id(request)
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs"
    document = {"error": message, "code": code, "detail": {}, "request_id": request_id}
    return Response(encode(document), error.status_code, error.headers, _JSON)


def create_api(front: Front, clock: Callable[[], float] = time.perf_counter) -> FastAPI:
    """Return the ASGI application; nothing runs until it is served."""
    routes = Routes(front, clock)
    errors: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody} for status in (400, 401, 413, 422, 429, 503)
    }
    examples = front.examples
    asking = APIRouter(tags=["signals"], dependencies=[Depends(routes.authorize)], responses=errors)
    asking.post(
        "/v1/signals",
        responses={200: {"model": DecisionBody}},
        openapi_extra=request_body(SignalBody, examples.signals),
    )(routes.signals)
    asking.post(
        "/v1/signals:batch",
        responses={200: {"model": BatchAnswer}},
        openapi_extra=request_body(BatchBody, examples.batch),
    )(routes.signals_batch)
    asking.post(
        "/predict",
        responses={200: {"model": PredictAnswer}},
        openapi_extra=request_body(PredictBody, examples.predict),
    )(routes.predict)
    asking.get("/v1/monitor")(routes.monitor)
    api = FastAPIOffline(title="SignalGraph", redoc_url=None, lifespan=front.lifespan, version="1")
    api.include_router(asking)
    api.get("/v2/health/live", tags=["health"])(routes.live)
    api.get(
        "/v2/health/ready",
        tags=["health"],
        responses={503: {"description": "a variant is not ready; the body says why"}},
    )(routes.ready)
    api.add_exception_handler(ServeAppError, routes.on_error)
    api.add_exception_handler(HTTPException, _on_http_error)
    api.add_exception_handler(Exception, _on_bug)
    describe(api, (SignalBody, BatchBody, PredictBody), with_keys=bool(front.api_key_hashes))
    return api
