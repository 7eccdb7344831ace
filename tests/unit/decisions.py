"""Two decisions to keep."""

from dataclasses import replace
from datetime import UTC, datetime

from serve_app.types import Action, Decision, Reason, Status, VariantName

DECIDED = Decision(
    decision_id="d-1",
    symbol="IBM",
    timestamp=datetime(2026, 3, 1, tzinfo=UTC),
    status=Status.OK,
    reason=None,
    probability=0.7,
    action=Action.BUY,
    variant=VariantName.CANDIDATE,
    model_version="v1.1",
    bundle_digest="sha256:" + "a" * 64,
    epoch=3,
    batch_size=2,
    timings_ms={"model": 1.5},
)
ABSTAINED = replace(
    DECIDED,
    decision_id="d-2",
    timestamp=None,
    status=Status.ABSTAIN,
    reason=Reason.DEADLINE,
    probability=None,
    action=Action.HOLD,
    timings_ms={},
)
