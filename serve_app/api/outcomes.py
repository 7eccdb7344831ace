"""The calls that report what really happened."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from serve_app.api.responses import request_id_of, respond
from serve_app.documentation import request_body
from serve_app.errors import MalformedRequest, OutcomeConflict, ServeAppError, UnknownDecision
from serve_app.journal import Report
from serve_app.schemas import Limits, error_document, parse_json, structure
from serve_app.schemas.outcomes import OutcomeAnswer, OutcomeBody, OutcomesAnswer, OutcomesBody

Reporting = Callable[[Mapping[str, int]], Awaitable[Mapping[str, Report]]]
OUTCOME_BODIES = (OutcomeBody, OutcomesBody)
_LIMITS = Limits(max_body_bytes=1 << 20, max_bars=0, max_batch_requests=1000)
_EXAMPLE = {"decision_id": "2095f540-c2dc-5686-a090-aa19420424f9", "label": 1}


def _error(decision_id: str, report: Report) -> ServeAppError | None:
    if report is Report.UNKNOWN:
        return UnknownDecision(f"the journal has no decision {decision_id}: report what came of it once it is answered")
    if report is Report.CONFLICTING:
        return OutcomeConflict(f"another outcome of {decision_id} was reported before, and stays")
    return None


async def _body(request: Request, model: type[BaseModel]) -> Any:
    return structure(model, parse_json(await request.body(), _LIMITS))


def outcome_router(report: Reporting) -> APIRouter:
    """Return the routes of `/v1/outcomes`."""
    router = APIRouter(prefix="/v1/outcomes", tags=["decisions"])

    @router.post("", responses={200: {"model": OutcomeAnswer}}, openapi_extra=_described(OutcomeBody, _EXAMPLE))
    async def outcome(request: Request) -> Response:
        """Report what came of one decision. The same again is fine; another label is a 409."""
        body: OutcomeBody = await _body(request, OutcomeBody)
        said = (await report({body.decision_id: body.label}))[body.decision_id]
        if error := _error(body.decision_id, said):
            raise error
        return respond({"decision_id": body.decision_id, "report": said})

    described = _described(OutcomesBody, {"outcomes": [_EXAMPLE]})

    @router.post(":batch", responses={200: {"model": OutcomesAnswer}}, openapi_extra=described)
    async def outcomes(request: Request) -> Response:
        """Report what came of many decisions, each with an answer or an error of its own, in their order."""
        body: OutcomesBody = await _body(request, OutcomesBody)
        labels = _labels(body.outcomes)
        said, request_id = await report(labels), request_id_of(request)
        results = [_result(one.decision_id, said[one.decision_id], request_id) for one in body.outcomes]
        return respond({"results": results})

    return router


def _labels(outcomes: Sequence[OutcomeBody]) -> dict[str, int]:
    labels: dict[str, int] = {one.decision_id: one.label for one in outcomes}
    if len(labels) < len({(one.decision_id, one.label) for one in outcomes}):
        raise MalformedRequest("one decision has two outcomes in this call; nothing was recorded")
    return labels


def _result(decision_id: str, report: Report, request_id: str) -> dict[str, Any]:
    error = _error(decision_id, report)
    return error_document(error, request_id) if error else {"decision_id": decision_id, "report": report}


def _described(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    return request_body(model, {"example": example})
