"""The calls that report what really happened."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter, Request, Response

from serve_app.api.body import described, read
from serve_app.api.responses import request_id_of, respond
from serve_app.errors import MalformedRequest, OutcomeConflict, ServeAppError, UnknownDecision
from serve_app.journal import Labels, Report
from serve_app.schemas import error_document
from serve_app.schemas.outcomes import OutcomeAnswer, OutcomeBody, OutcomesAnswer, OutcomesBody

Reporting = Callable[[Labels], Awaitable[Mapping[str, Report]]]
OUTCOME_BODIES = (OutcomeBody, OutcomesBody)
_EXAMPLE = {"decision_id": "2095f540-c2dc-5686-a090-aa19420424f9", "label": 1}


def _error(decision_id: str, report: Report) -> ServeAppError | None:
    if report is Report.UNKNOWN:
        return UnknownDecision(f"the journal has no decision {decision_id}: report what came of it once it is answered")
    if report is Report.CONFLICTING:
        return OutcomeConflict(f"another outcome of {decision_id} was reported before, and stays")
    return None


def outcome_router(report: Reporting) -> APIRouter:
    """Return the routes of `/v1/outcomes`."""
    router = APIRouter(prefix="/v1/outcomes", tags=["decisions"])

    @router.post("", responses={200: {"model": OutcomeAnswer}}, openapi_extra=described(OutcomeBody, _EXAMPLE))
    async def outcome(request: Request) -> Response:
        """Report what came of one decision. The same again is fine; another label is a 409."""
        body = await read(request, OutcomeBody)
        said = (await report({body.decision_id: body.label}))[body.decision_id]
        if error := _error(body.decision_id, said):
            raise error
        return respond({"decision_id": body.decision_id, "report": said})

    many = described(OutcomesBody, {"outcomes": [_EXAMPLE]})

    @router.post(":batch", responses={200: {"model": OutcomesAnswer}}, openapi_extra=many)
    async def outcomes(request: Request) -> Response:
        """Report what came of many decisions, each with an answer or an error of its own, in their order."""
        body = await read(request, OutcomesBody)
        labels = _labels(body.outcomes)
        said, request_id = await report(labels), request_id_of(request)
        results = [_result(one.decision_id, said[one.decision_id], request_id) for one in body.outcomes]
        return respond({"results": results})

    return router


def _labels(outcomes: Sequence[OutcomeBody]) -> Labels:
    labels = {one.decision_id: one.label for one in outcomes}
    if len(labels) < len({(one.decision_id, one.label) for one in outcomes}):
        raise MalformedRequest("one decision has two outcomes in this call; nothing was recorded")
    return labels


def _result(decision_id: str, report: Report, request_id: str) -> dict[str, Any]:
    error = _error(decision_id, report)
    return error_document(error, request_id) if error else {"decision_id": decision_id, "report": report}
