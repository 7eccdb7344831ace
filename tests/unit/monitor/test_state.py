from datetime import UTC, datetime

import numpy as np
import pytest

from serve_app.errors import TooFewBars
from serve_app.monitor import MonitorState, Observation, observe
from serve_app.types import Action, Decision, Reason, Status, VariantName

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


def answered(latency_ms: float = 1.0, **changes: object) -> Observation:
    given: dict[str, object] = {
        "variant": PRODUCTION,
        "model_version": "v1.0",
        "action": Action.HOLD,
        "batch_size": 1,
        "timings_ms": {"model": latency_ms / 2},
        **changes,
    }
    return Observation(latency_ms, **given)  # type: ignore[arg-type]


def decision(**changes: object) -> Decision:
    given: dict[str, object] = {
        "decision_id": "d",
        "symbol": "IBM",
        "timestamp": datetime(2013, 3, 1, tzinfo=UTC),
        "status": Status.OK,
        "reason": None,
        "probability": 0.6,
        "action": Action.BUY,
        "variant": CANDIDATE,
        "model_version": "v1.1",
        "bundle_digest": "sha256:0",
        "epoch": 1,
        "batch_size": 7,
        "timings_ms": {"model": 2.0},
        **changes,
    }
    return Decision(**given)  # type: ignore[arg-type]


def test_a_monitor_that_heard_nothing_says_so() -> None:
    assert MonitorState(10).snapshot() == {
        "variants": {},
        "errors": {},
        "dropped_observations": 0,
        "latency_window": 10,
    }


def test_variants_are_counted_apart() -> None:
    state = MonitorState(10)
    state.add([answered(), answered(action=Action.BUY), answered(variant=CANDIDATE, model_version="v1.1")])
    variants = state.snapshot()["variants"]
    assert list(variants) == ["candidate", "production"]
    assert variants["production"]["requests"] == 2
    assert variants["production"]["actions"] == {"HOLD": 1, "BUY": 1}
    assert variants["production"]["model_versions"] == {"v1.0": 2}
    assert variants["candidate"]["model_versions"] == {"v1.1": 1}


def test_abstentions_are_counted_by_reason_and_never_among_the_actions() -> None:
    state = MonitorState(10)
    state.add(
        [
            answered(),
            answered(reason=Reason.DEADLINE, action=Action.SELL, batch_size=0),
            answered(reason=Reason.DEADLINE, batch_size=0),
            answered(reason=Reason.MODEL_UNAVAILABLE, batch_size=0),
        ]
    )
    production = state.snapshot()["variants"]["production"]
    assert production["requests"] == 4
    assert production["abstentions"] == {"deadline": 2, "model_unavailable": 1}
    assert production["actions"] == {"HOLD": 1}
    assert production["rows_by_batch_size"] == {"1": 1}


def test_percentiles_are_those_of_the_latest_answers() -> None:
    state = MonitorState(100)
    latencies = np.random.default_rng(0).permutation(1000).astype(float)
    for some in np.split(latencies, 20):
        state.add([answered(latency) for latency in some.tolist()])
    production = state.snapshot()["variants"]["production"]
    expected = {f"p{q}": pytest.approx(np.percentile(latencies[-100:], q), abs=1e-3) for q in (50, 95, 99)}
    assert production["latency_ms"] == expected
    assert production["stages_ms"]["model"]["p50"] == pytest.approx(np.percentile(latencies[-100:], 50) / 2, abs=1e-3)
    assert production["requests"] == 1000


def test_stages_that_only_some_answers_went_through_have_percentiles_of_those() -> None:
    state = MonitorState(10)
    state.add([answered(timings_ms={"queue": 4.0}), answered(timings_ms={}), answered(timings_ms=None)])
    assert state.snapshot()["variants"]["production"]["stages_ms"] == {"queue": {"p50": 4.0, "p95": 4.0, "p99": 4.0}}


def test_batch_sizes_are_sorted_by_size() -> None:
    state = MonitorState(10)
    state.add([answered(batch_size=size) for size in (10, 2, 10, 1)])
    sizes = state.snapshot()["variants"]["production"]["rows_by_batch_size"]
    assert list(sizes.items()) == [("1", 1), ("2", 1), ("10", 2)]


def test_errors_are_counted_by_code_and_belong_to_no_variant() -> None:
    state = MonitorState(10)
    state.add([Observation(1.0, error="malformed"), Observation(1.0, error="malformed"), Observation(1.0, error="x")])
    assert state.snapshot()["errors"] == {"malformed": 2, "x": 1}
    assert state.snapshot()["variants"] == {}


def test_what_was_dropped_on_the_way_adds_up() -> None:
    state = MonitorState(10)
    state.add([], dropped=3)
    state.add([answered()], dropped=2)
    assert state.snapshot()["dropped_observations"] == 5


def test_a_snapshot_does_not_change_afterwards() -> None:
    state = MonitorState(10)
    state.add([answered()])
    before = state.snapshot()
    state.add([answered(), Observation(1.0, error="malformed")])
    assert before["variants"]["production"]["actions"] == {"HOLD": 1}
    assert before["errors"] == {}


def test_a_decision_is_observed_with_what_the_monitor_counts() -> None:
    assert observe(decision(), 3.5) == Observation(
        3.5, CANDIDATE, "v1.1", Action.BUY, None, None, batch_size=7, timings_ms={"model": 2.0}
    )


def test_an_abstention_is_observed_with_its_reason() -> None:
    abstained = decision(status=Status.ABSTAIN, reason=Reason.DEADLINE, probability=None)
    assert observe(abstained, 1.0).reason is Reason.DEADLINE


def test_an_error_is_observed_by_its_code_alone() -> None:
    assert observe(TooFewBars("10 bars given"), 2.0) == Observation(2.0, error="too_few_bars")
