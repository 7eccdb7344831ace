from datetime import UTC, datetime

import numpy as np
import orjson
import pytest

from serve_app.errors import MalformedRequest, ServeAppError, TooFewBars
from serve_app.monitor import Answered, MonitorState, observe
from serve_app.schemas import encode
from serve_app.types import Action, Decision, Reason, Status, VariantName

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


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


def answered(latency_ms: float = 1.0, **changes: object) -> Answered:
    """One answer of production."""
    given = {
        "variant": PRODUCTION,
        "model_version": "v1.0",
        "action": Action.HOLD,
        "batch_size": 1,
        "timings_ms": {"model": latency_ms / 2},
        **changes,
    }
    return Answered(decision(**given), latency_ms)


def refused(error: ServeAppError) -> Answered:
    return Answered(error, 1.0)


def test_a_monitor_that_heard_nothing_says_so() -> None:
    assert MonitorState(10).snapshot() == {
        "variants": {},
        "errors": {},
        "dropped_observations": 0,
        "latency_window": 10,
    }


def test_variants_are_counted_apart() -> None:
    state = MonitorState(10)
    state.add(observe([answered(), answered(action=Action.BUY), answered(variant=CANDIDATE, model_version="v1.1")]))
    variants = state.snapshot()["variants"]
    assert list(variants) == ["candidate", "production"]
    assert variants["production"]["requests"] == 2
    assert variants["production"]["actions"] == {"HOLD": 1, "BUY": 1}
    assert variants["production"]["model_versions"] == {"v1.0": 2}
    assert variants["candidate"]["model_versions"] == {"v1.1": 1}


def test_abstentions_are_counted_by_reason_and_never_among_the_actions() -> None:
    state = MonitorState(10)
    answers = [
        answered(),
        answered(reason=Reason.DEADLINE, action=Action.SELL, batch_size=0),
        answered(reason=Reason.DEADLINE, batch_size=0),
        answered(reason=Reason.MODEL_UNAVAILABLE, batch_size=0),
    ]
    state.add(observe(answers))
    production = state.snapshot()["variants"]["production"]
    assert production["requests"] == 4
    assert production["abstentions"] == {"deadline": 2, "model_unavailable": 1}
    assert production["actions"] == {"HOLD": 1}
    assert production["rows_by_batch_size"] == {"1": 1}


def test_percentiles_are_those_of_the_latest_answers() -> None:
    state = MonitorState(100)
    latencies = np.random.default_rng(0).permutation(1000).astype(float)
    for some in np.split(latencies, 20):
        state.add(observe([answered(latency) for latency in some.tolist()]))
    production = state.snapshot()["variants"]["production"]
    expected = {f"p{q}": pytest.approx(np.percentile(latencies[-100:], q), abs=1e-3) for q in (50, 95, 99)}
    assert production["latency_ms"] == expected
    assert production["stages_ms"]["model"]["p50"] == pytest.approx(np.percentile(latencies[-100:], 50) / 2, abs=1e-3)
    assert production["requests"] == 1000


def test_stages_that_only_some_answers_went_through_have_percentiles_of_those() -> None:
    state = MonitorState(10)
    state.add(observe([answered(timings_ms={"queue": 4.0}), answered(timings_ms={})]))
    assert state.snapshot()["variants"]["production"]["stages_ms"] == {"queue": {"p50": 4.0, "p95": 4.0, "p99": 4.0}}


def test_batch_sizes_are_sorted_by_size() -> None:
    state = MonitorState(10)
    state.add(observe([answered(batch_size=size) for size in (10, 2, 10, 1)]))
    sizes = state.snapshot()["variants"]["production"]["rows_by_batch_size"]
    assert list(sizes.items()) == [("1", 1), ("2", 1), ("10", 2)]


def test_errors_are_counted_by_code_and_belong_to_no_variant() -> None:
    state = MonitorState(10)
    wrong = refused(MalformedRequest("not JSON"))
    state.add(observe([wrong, wrong, refused(TooFewBars("10 bars given"))]))
    assert state.snapshot()["errors"] == {"malformed": 2, "too_few_bars": 1}
    assert state.snapshot()["variants"] == {}


def test_what_was_dropped_on_the_way_adds_up() -> None:
    state = MonitorState(10)
    state.add(observe([]), dropped=3)
    state.add(observe([answered()]), dropped=2)
    assert state.snapshot()["dropped_observations"] == 5


def test_a_snapshot_does_not_change_afterwards() -> None:
    state = MonitorState(10)
    state.add(observe([answered()]))
    before = state.snapshot()
    state.add(observe([answered(), refused(MalformedRequest("not JSON"))]))
    assert before["variants"]["production"]["actions"] == {"HOLD": 1}
    assert before["errors"] == {}


def test_answers_are_told_once_however_many_times_the_router_tells() -> None:
    at_once, one_by_one = MonitorState(100), MonitorState(100)
    answers = [answered(float(i), action=action) for i, action in enumerate([*Action] * 5)]
    answers += [refused(TooFewBars("10 bars given")), answered(reason=Reason.DEADLINE)]
    at_once.add(observe(answers))
    for one in answers:
        one_by_one.add(observe([one]))
    assert at_once.snapshot() == one_by_one.snapshot()


def test_a_snapshot_can_be_sent() -> None:
    state = MonitorState(10)
    state.add(observe([answered(), answered(reason=Reason.DEADLINE), refused(TooFewBars("10 bars given"))]))
    assert orjson.loads(encode(state.snapshot())) == state.snapshot()
