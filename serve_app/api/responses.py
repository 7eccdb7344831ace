"""Responses: a document or an error as JSON, under the caller's request id."""

import re
import secrets
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from starlette.exceptions import HTTPException

from serve_app.errors import MalformedRequest, ServeAppError, Unauthorized
from serve_app.schemas import REQUEST_ID, encode, error_document
from serve_app.service import DEFECT
from serve_app.types import Action

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
_IDEMPOTENCY_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_NAME = REQUEST_ID.lower().encode()
_JSON = "application/json"
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
"""Worth asking again."""


def new_request_id() -> str:
    """Return 128 random bits, as hexadecimal digits."""
    return secrets.token_hex(16)


def _header(request: Request, name: bytes) -> str | None:
    # What `request.headers` would find, which makes an object of them all first.
    headers: Iterable[tuple[bytes, bytes]] = request.scope["headers"]
    return next((value.decode("latin-1") for given, value in headers if given == name), None)


def request_id_of(request: Request) -> str:
    """Return the caller's request id, or a new one. Raises MalformedRequest for one that cannot be echoed."""
    given = _header(request, _NAME)
    if given is None:
        return new_request_id()
    if not _REQUEST_ID.fullmatch(given):
        raise MalformedRequest(f"{REQUEST_ID} must be 1 to 128 visible ASCII characters")
    return given


def idempotency_key_of(request: Request) -> str | None:
    """Return the caller's idempotency key, if any. Raises MalformedRequest for one that is no readable text."""
    given = _header(request, b"idempotency-key")
    if given is not None and not _IDEMPOTENCY_KEY.fullmatch(given):
        raise MalformedRequest("Idempotency-Key must be 1 to 255 visible ASCII characters")
    return given


def respond(document: Any, status: int = 200) -> Response:
    """Answer with a document."""
    return Response(encode(document), status, media_type=_JSON)


def respond_error(request_id: str, error: ServeAppError) -> Response:
    """Answer with an error, and say when to come back where that helps."""
    headers = {}
    if error.status_code in _LATER:
        headers["Retry-After"] = str(error.detail.get("retry_after_s", 1))
    if isinstance(error, Unauthorized):
        headers["WWW-Authenticate"] = "Bearer"
    return Response(encode(error_document(error, request_id)), error.status_code, headers, _JSON)


def error_id(request: Request) -> str:
    """Return the id to answer an error with, which may be that the id is unusable."""
    try:
        return request_id_of(request)
    except MalformedRequest:
        return new_request_id()


def respond_unread(request_id: str, error: ServeAppError) -> Response:
    """Answer a request of which nothing could be read, so that no position is known either."""
    error.detail.setdefault("fallback_action", Action.HOLD)
    return respond_error(request_id, error)


async def on_error(request: Request, error: Exception) -> Response:
    """Answer what a handler raises of our own."""
    assert isinstance(error, ServeAppError)  # noqa: S101  registered for nothing else
    return respond_unread(error_id(request), error)


async def on_bug(request: Request, error: Exception) -> Response:  # noqa: ARG001  what went wrong is in the log only
    """Answer a defect of ours without giving away what it is."""
    return respond_unread(error_id(request), ServeAppError(DEFECT))


async def on_http_error(request: Request, error: Exception) -> Response:
    """Answer what FastAPI itself refuses (no such route, wrong method) in our own shape."""
    assert isinstance(error, HTTPException)  # noqa: S101  registered for nothing else
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    request_id = error_id(request)
    message = f"{request.method} {request.url.path}: {error.detail}; see /docs"
    document = {"error": message, "code": code, "detail": {}, "request_id": request_id}
    return Response(encode(document), error.status_code, error.headers, _JSON)
