"""Decisions and errors → JSON, in the shapes that `bodies` documents."""

from datetime import datetime
from typing import Any

import orjson

from serve_app.errors import ServeAppError
from serve_app.types import Decision


def decision_document(decision: Decision) -> dict[str, Any]:
    """Return the JSON document of a decision, in the shape of DecisionBody."""
    return {
        "decision_id": decision.decision_id,
        "symbol": decision.symbol,
        "timestamp": decision.timestamp,
        "status": decision.status,
        "reason": decision.reason,
        "prediction_probability": decision.probability,
        "recommended_action": decision.action,
        "variant": decision.variant,
        "model_version": decision.model_version,
        "bundle_digest": decision.bundle_digest,
        "epoch": decision.epoch,
        "timings_ms": {stage: round(value, 3) for stage, value in decision.timings_ms.items()},
    }


def predict_document(decision: Decision, now: datetime) -> dict[str, Any]:
    """Return the JSON document of a decision in the shape of PredictAnswer."""
    return {
        "prediction_probability": decision.probability,
        "recommended_action": decision.action,
        "timestamp": now,
        "status": decision.status,
        "reason": decision.reason,
        "decision_id": decision.decision_id,
        "variant": decision.variant,
        "model_version": decision.model_version,
        "bundle_digest": decision.bundle_digest,
        "epoch": decision.epoch,
    }


def error_document(error: ServeAppError, request_id: str) -> dict[str, Any]:
    """Return the JSON document of an error, in the shape of ErrorBody."""
    return {"error": str(error), "code": error.code, "detail": error.detail, "request_id": request_id}


def encode(document: Any) -> bytes:
    """Encode a document; times as ISO 8601 with Z."""
    return orjson.dumps(document, option=orjson.OPT_UTC_Z)
