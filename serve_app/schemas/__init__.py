"""HTTP bodies: JSON in → `SignalRequest`, decisions → JSON out."""

from serve_app.schemas.arrow import STREAM, Unreadable, parse_arrow
from serve_app.schemas.bodies import (
    REQUEST_ID,
    BatchAnswer,
    BatchBody,
    DecisionBody,
    ErrorBody,
    KeptDecisionBody,
    PredictAnswer,
    PredictBody,
    ReplayBody,
    SignalBody,
)
from serve_app.schemas.decode import (
    Limits,
    parse_batch,
    parse_json,
    parse_predict,
    parse_signal,
    structure,
    what_can_be_read,
)
from serve_app.schemas.encode import decision_document, encode, error_document, predict_document
from serve_app.schemas.typed import decode_signal, split_batch

__all__ = [
    "REQUEST_ID",
    "STREAM",
    "BatchAnswer",
    "BatchBody",
    "DecisionBody",
    "ErrorBody",
    "KeptDecisionBody",
    "Limits",
    "PredictAnswer",
    "PredictBody",
    "ReplayBody",
    "SignalBody",
    "Unreadable",
    "decision_document",
    "decode_signal",
    "encode",
    "error_document",
    "parse_arrow",
    "parse_batch",
    "parse_json",
    "parse_predict",
    "parse_signal",
    "predict_document",
    "split_batch",
    "structure",
    "what_can_be_read",
]
