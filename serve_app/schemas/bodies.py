"""The bodies of the API as pydantic models: they fix the outer structure of requests and document both directions."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema
from pydantic.config import JsonDict

from serve_app.types import Status

# What may be large is not validated by pydantic, which would describe every wrong element of millions: `decode` looks
# at it in plain code, up to the first fault. These schemas document it.
Rows = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "object"}})]
RowsOrColumns = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": {"type": "object"}, "description": "one object a bar"},
                {"type": "object", "additionalProperties": {"type": "array"}, "description": "one array a column"},
            ]
        }
    ),
]
Names = Annotated[Any, WithJsonSchema({"type": "array", "items": {"type": "string"}})]
Table = Annotated[
    Any, WithJsonSchema({"type": "array", "items": {"type": "array", "items": {"type": ["number", "null"]}}})
]


MAX_SYMBOL = 64
"""Characters of a symbol."""
REQUEST_ID = "X-Request-Id"
"""Header of every request and response; Ray Serve makes one where it is missing, and sends it back."""
EXAMPLE_DECISION: JsonDict = {
    "decision_id": "bdf503fd-1cb2-5dc7-be1f-6929c09f227e",
    "symbol": "MSFT",
    "timestamp": "2013-03-01T00:00:00Z",
    "status": "ok",
    "reason": None,
    "prediction_probability": 0.2341,
    "recommended_action": "HOLD",
    "variant": "production",
    "model_version": "v1.0",
    "bundle_digest": "sha256:048e95e6…",
    "epoch": 1,
    "timings_ms": {"queue": 0.1, "preprocess": 3.1, "model": 4.0, "strategy": 2.2},
}
EXAMPLE_ERROR: JsonDict = {
    "error": "272 bars given, 273 needed; send at least 273, oldest first",
    "code": "too_few_bars",
    "detail": {"given": 272, "needed": 273, "fallback_action": "HOLD"},
    "request_id": "order-17",
}


class Body(BaseModel):
    """A request body: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", strict=True)


class PositionBody(Body):
    """What the client holds. A LONG position says for how long it has been held."""

    status: str = Field(default="FLAT", examples=["FLAT", "LONG"])
    time_in_position_hours: float | None = Field(default=None, description="by the clock")
    time_in_position_bars: float | None = Field(default=None, description="in bars; what bundles that hold in bars use")


class FeaturesBody(Body):
    """Unscaled features that the client computed, rows oldest first; null where a value is missing."""

    columns: Names
    rows: Table
    timestamp: str | None = Field(default=None, description="of the last row: ISO 8601 with a time zone")


class SignalBody(Body):
    """`POST /v1/signals`: a symbol with either its bars or its features."""

    symbol: str = Field(min_length=1, max_length=MAX_SYMBOL)
    bars: RowsOrColumns = Field(
        default=None,
        description="timestamp (ISO 8601 with a time zone), open, high, low, close, volume and optionally vwap and"
        " exogenous columns, as rows or as columns",
    )
    features: FeaturesBody | None = None
    position: PositionBody | None = None


class BatchBody(Body):
    """`POST /v1/signals:batch`."""

    requests: Rows = Field(description="signal requests, as in POST /v1/signals")


class PredictBody(Body):
    """`POST /predict`: raw bars, unless each row carries every feature column of the model."""

    symbol: str = Field(min_length=1, max_length=MAX_SYMBOL)
    historical_data: Rows
    position: PositionBody | None = None


class DecisionBody(BaseModel):
    """A decision. An abstention has status `abstain`, a reason, no probability, and an action that needs no model."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_DECISION})

    decision_id: str
    symbol: str
    timestamp: datetime | None = Field(description="of the last bar, as the client gave it")
    status: Status
    reason: str | None
    prediction_probability: float | None
    recommended_action: str
    variant: str
    model_version: str
    bundle_digest: str
    epoch: int
    timings_ms: dict[str, float]


class InputsBody(BaseModel):
    """The validated numbers that a decision was made from: the bars that the model reads, or its features."""

    asset_id: int
    is_long: bool
    held: float = Field(description="in the unit of the bundle's thresholds")
    timestamps: list[datetime] | None
    bars: list[list[float | None]] | None
    features: list[list[float | None]] | None


class KeptDecisionBody(DecisionBody):
    """A decision from the journal."""

    at: datetime = Field(description="when it was made")
    batch_size: int
    window_crc: int | None = Field(description="CRC-32 of the scaled window that the model saw")
    inputs: InputsBody


class ReplayBody(BaseModel):
    """A decision computed again from what the journal kept."""

    agrees: bool
    decision_id: str
    first_difference: str | None = Field(description="`preprocess`, `model` or `strategy`")
    recorded: dict[str, Any]
    computed: dict[str, Any]


class ErrorBody(BaseModel):
    """An error says what is wrong and how to mend it; `detail.fallback_action` is the action that needs no model."""

    model_config = ConfigDict(json_schema_extra={"example": EXAMPLE_ERROR})

    error: str
    code: str
    detail: dict[str, Any]
    request_id: str


class BatchAnswer(BaseModel):
    """Decisions or errors, in the order of the requests."""

    results: list[DecisionBody | ErrorBody]


class PredictAnswer(BaseModel):
    """The answer of `POST /predict`; `timestamp` is when it was given."""

    prediction_probability: float | None
    recommended_action: str
    timestamp: datetime
    status: Status
    reason: str | None
    decision_id: str
    variant: str
    model_version: str
    bundle_digest: str
    epoch: int
