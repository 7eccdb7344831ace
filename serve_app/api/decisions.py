"""The calls about decisions of the past: what was decided, from what, and whether it would be again."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Response

from serve_app.api.outcomes import Reporting
from serve_app.api.responses import respond
from serve_app.journal import Record, decision_of, unpack_row
from serve_app.replay import Find, Replay
from serve_app.schemas import KeptDecisionBody, ReplayBody, decision_document


@dataclass(frozen=True, slots=True)
class Past:
    """Who knows it."""

    find: Find
    replay: Callable[[str], Awaitable[Replay]]
    report: Reporting


def kept_document(record: Record) -> dict[str, Any]:
    """Return the JSON document of a decision from the journal, in the shape of KeptDecisionBody."""
    row = unpack_row(record["inputs"])
    values = {"bars": row.bars, "features": row.features}
    return {
        **decision_document(decision_of(record)),
        **{name: record[name] for name in ("at", "batch_size", "window_crc")},
        "inputs": {
            "asset_id": row.asset_id,
            "is_long": row.is_long,
            "held": row.held,
            "timestamps": None if row.timestamps is None else [f"{time}Z" for time in row.timestamps],
            **{name: None if array is None else array.tolist() for name, array in values.items()},
        },
    }


def decision_router(past: Past) -> APIRouter:
    """Return the routes of `/v1/decisions`."""
    router = APIRouter(prefix="/v1/decisions", tags=["decisions"])

    @router.get("/{decision_id}", responses={200: {"model": KeptDecisionBody}})
    async def decision(decision_id: str) -> Response:
        """Show a decision that was answered, with the validated numbers that it was made from."""
        return respond(kept_document(await past.find(decision_id)))

    @router.post("/{decision_id}:replay", responses={200: {"model": ReplayBody}})
    async def replay(decision_id: str) -> Response:
        """Compute a decision again, by the bundle and thresholds that it names, and say which stage differs first."""
        return respond((await past.replay(decision_id)).document())

    return router
