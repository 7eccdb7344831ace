"""Bodies of calls that are seldom and small: read into a model, and described in /docs with an example."""

from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from serve_app.documentation import request_body
from serve_app.schemas import Limits, parse_json, structure

ModelT = TypeVar("ModelT", bound=BaseModel)
_LIMITS = Limits(max_body_bytes=1 << 20, max_bars=0, max_batch_requests=0)


async def read(request: Request, model: type[ModelT]) -> ModelT:
    """Return the body of a call. Raises MalformedRequest that names every wrong key."""
    return structure(model, parse_json(await request.body(), _LIMITS))


def described(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return what /docs says of a body."""
    return request_body(model, {"example": example})
