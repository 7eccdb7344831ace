from collections.abc import Iterable
from datetime import timedelta

import numpy as np
import orjson
import pytest

from serve_app.errors import MalformedRequest, ServeAppError, TooFewBars
from serve_app.model import load_bundle
from serve_app.monitor import Gathering, Learnt, MonitorState, Told
from serve_app.monitor.state import SILENT_S, failures
from serve_app.schemas import encode
from serve_app.types import Action, Kind, Reason, VariantName
from tests.factories import ROOT
from tests.unit.monitor.answers import NOW, decision, router, state, told

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


def test_a_monitor_that_heard_nothing_says_so() -> None:
    assert state(10).snapshot() == {
        "variants": {},
        "drift": {},
        "errors": {},
        "memory": {},
        "dropped_observations": 0,
        "latency_window": 10,
    }


def test_variants_are_counted_apart() -> None:
    monitor = state()
    of_candidate = decision(variant=CANDIDATE, model_version="v1.1")
    monitor.add(told([decision(), decision(action=Action.BUY), of_candidate]))
    variants = monitor.snapshot()["variants"]
    assert list(variants) == ["candidate", "production"]
    assert variants["production"]["requests"] == 2
    assert variants["production"]["actions"] == {"HOLD": 1, "BUY": 1}
    assert variants["production"]["model_versions"] == {"v1.0": 2}
    assert variants["candidate"]["model_versions"] == {"v1.1": 1}
    assert [variants[name]["model_version"] for name in ("production", "candidate")] == ["v1.0", "v1.1"]


def test_abstentions_are_counted_by_reason_and_never_among_the_actions() -> None:
    monitor = state()
    reasons = (None, Reason.DEADLINE, Reason.DEADLINE, Reason.MODEL_UNAVAILABLE)
    monitor.add(told([decision(reason=reason) for reason in reasons]))
    production = monitor.snapshot()["variants"]["production"]
    assert production["requests"] == 4
    assert production["abstentions"] == {"deadline": 2, "model_unavailable": 1}
    assert production["actions"] == {"HOLD": 1}
    assert production["rows_by_batch_size"] == {"1": 1}


def test_percentiles_are_those_of_the_latest_answers() -> None:
    monitor, by = state(100), router()
    latencies = np.random.default_rng(0).permutation(1000).astype(float)
    for latency in latencies.tolist():
        monitor.add(told([decision(timings_ms={"model": latency / 2})], latency, by))
    production = monitor.snapshot()["variants"]["production"]
    expected = {f"p{q}": pytest.approx(np.percentile(latencies[-100:], q), abs=1e-3) for q in (50, 95, 99)}
    assert production["latency_ms"] == expected
    assert production["stages_ms"]["model"]["p50"] == pytest.approx(np.percentile(latencies[-100:], 50) / 2, abs=1e-3)
    assert production["requests"] == 1000


def test_stages_that_only_some_answers_went_through_have_percentiles_of_those() -> None:
    monitor = state()
    monitor.add(told([decision(timings_ms={"queue": 4.0}), decision(timings_ms={})]))
    assert monitor.snapshot()["variants"]["production"]["stages_ms"] == {"queue": {"p50": 4.0, "p95": 4.0, "p99": 4.0}}


def test_batch_sizes_are_sorted_by_size() -> None:
    monitor = state()
    monitor.add(told([decision(batch_size=size) for size in (10, 2, 10, 1)]))
    sizes = monitor.snapshot()["variants"]["production"]["rows_by_batch_size"]
    assert list(sizes.items()) == [("1", 1), ("2", 1), ("10", 2)]


def test_what_was_refused_unread_is_counted_with_the_errors() -> None:
    monitor, gathering = state(), router()
    gathering.refused("router_full", 3)
    monitor.add(told([TooFewBars("too few")], by=gathering))
    gathering.refused("router_full", 2)
    monitor.add(told([], by=gathering))
    assert monitor.snapshot()["errors"] == {"router_full": 5, "too_few_bars": 1}


def test_errors_are_counted_by_code_and_belong_to_no_variant() -> None:
    monitor = state()
    wrong = MalformedRequest("not JSON")
    monitor.add(told([wrong, wrong, TooFewBars("10 bars given")]))
    assert monitor.snapshot()["errors"] == {"malformed": 2, "too_few_bars": 1}
    assert monitor.snapshot()["variants"] == {}


def test_only_errors_of_the_server_are_failures() -> None:
    monitor, by = state(), router()
    monitor.add(told([], by=by))
    monitor.add(told([decision(), ServeAppError("a defect"), MalformedRequest("not JSON")], by=by))
    assert sorted(monitor.failed) == [False, True]


def test_what_was_wrong_or_refused_unread_makes_no_share_of_failures_smaller() -> None:
    monitor, gathering = state(), router()
    gathering.refused("router_full", 1_000)
    monitor.add(told([decision(), ServeAppError("a defect"), MalformedRequest("not JSON")], by=gathering))
    assert failures(monitor.snapshot()) == (1, 2)


def test_a_decision_that_is_told_twice_is_counted_once() -> None:
    """As a push whose answer was lost, and as a request that a proxy has repeated: another time, the same id."""
    monitor, by = state(), router()
    by.record([decision(), decision()], 1.0)
    monitor.add(by.take())
    by.failed()
    by.record([decision(), ServeAppError("a defect")], 1.0)
    monitor.add(by.take())
    by.arrived()
    assert monitor.snapshot()["variants"]["production"]["requests"] == 3
    assert monitor.snapshot()["errors"] == {"internal": 1}
    same = decision(decision_id="same")
    monitor.add(told([same]))
    monitor.add(told([same], by=router("b")))
    assert monitor.snapshot()["variants"]["production"]["requests"] == 4
    assert len(monitor.variants[PRODUCTION].latencies_ms) == 4


def test_a_router_that_is_full_drops_the_oldest_and_counts_them() -> None:
    by = router(room=3)
    made = [decision() for _ in range(7)]
    by.record(made[:5], 1.0)
    said = by.take()
    assert ([one.decision_id for one in said.decisions], said.dropped) == ([one.decision_id for one in made[2:5]], 2)
    by.record(made[5:], 1.0)
    by.failed()
    again = by.take()
    assert [one.decision_id for one in again.decisions] == [one.decision_id for one in made[4:]]
    assert again.dropped == 4
    monitor = state()
    monitor.add(said)
    monitor.add(again)
    assert monitor.snapshot()["dropped_observations"] == 4


def test_a_monitor_that_begins_again_counts_what_the_journal_counts_and_what_is_not_there_yet() -> None:
    monitor = state()
    shipped, late = decision(), decision()
    monitor.add(told([shipped, late]))
    kind = Kind(PRODUCTION, "v1.0", Action.HOLD, None, 1)
    monitor.restore({kind: 500}, ["older", shipped.decision_id])
    assert monitor.snapshot()["variants"]["production"]["requests"] == 501
    monitor.add(told([decision(decision_id="older"), shipped, late]))
    assert monitor.snapshot()["variants"]["production"]["requests"] == 501


def test_what_was_decided_while_the_monitor_was_away_is_in_its_windows_too() -> None:
    """By the time that it is told, the journal has it: it is counted already, and nobody has seen it yet."""
    monitor, by = state(), router()
    early, late = decision(), decision()
    monitor.add(told([early], by=by))
    monitor.restore({Kind(PRODUCTION, "v1.0", Action.HOLD, None, 1): 2}, [early.decision_id, late.decision_id])
    by.record([early, late], 1.0)
    for _ in range(2):
        monitor.add(by.take())
        by.failed()  # and is told again
    production = monitor.snapshot()["variants"]["production"]
    assert (production["requests"], production["model_version"]) == (2, "v1.0")
    assert len(monitor.variants[PRODUCTION].probabilities) == 2
    assert len(monitor.tape.latest()["decisions"]) == 2


def test_a_monitor_that_begins_again_hears_from_the_routers_what_the_journal_does_not_keep() -> None:
    by, monitor = router(), state()
    told([decision() for _ in range(30)], 7.0, by)
    past = by.past()
    monitor.restore({past.decisions[0].kind: 30}, [one.decision_id for one in past.decisions])
    assert monitor.add(told([], by=by)).is_new
    monitor.add(past)
    assert not monitor.add(told([], by=by)).is_new
    production = monitor.snapshot()["variants"]["production"]
    assert production["requests"] == 30
    assert production["latency_ms"] == {"p50": 7.0, "p95": 7.0, "p99": 7.0}


def test_what_is_told_before_its_reference_is_known_is_looked_at_then() -> None:
    reference = load_bundle(ROOT / "models/v1.0").reference
    assert reference is not None
    monitor, by = state(), router()
    rows = np.random.default_rng(0).normal(size=(100, 23)).astype(np.float32)
    assert monitor.add(told([decision(seen=row) for row in rows[:70]], by=by)).lacking == ("sha256:0",)
    monitor.learn("sha256:0", Learnt("v1.0", reference))
    assert monitor.add(told([decision(seen=row) for row in rows[70:]], by=by)).lacking == ()
    assert monitor.drift["sha256:0"].latest is not None


def test_another_model_begins_with_empty_windows() -> None:
    monitor = state()
    monitor.add(told([decision() for _ in range(5)]))
    monitor.add(told([decision(model_version="v1.1", probability=0.1)]))
    assert list(monitor.variants[PRODUCTION].probabilities) == [0.1]


def test_a_variant_that_nobody_asks_any_more_begins_anew_though_it_be_with_the_same_model() -> None:
    monitor = state()
    monitor.asked = {PRODUCTION, CANDIDATE}
    monitor.add(told([decision(probability=0.3)]))
    monitor.settle()
    monitor.add(told([decision(probability=0.1)]))
    assert list(monitor.variants[PRODUCTION].probabilities) == [0.3, 0.1]
    monitor.asked = {CANDIDATE}
    monitor.settle()
    assert monitor.snapshot()["variants"]["production"]["mean_prediction"] == 0.2  # is shown until then
    monitor.add(told([decision(probability=0.9)]))
    assert list(monitor.variants[PRODUCTION].probabilities) == [0.9]


@pytest.mark.parametrize("asked", [None, {PRODUCTION, CANDIDATE}, {PRODUCTION}, {CANDIDATE}])
def test_a_bundle_serves_until_it_is_known_that_no_variant_answers_with_it(asked: set[VariantName] | None) -> None:
    monitor = state()
    monitor.asked = asked
    assert monitor.serves("v1.0")  # nothing has been heard
    monitor.add(told([decision(model_version="v1.2")]))
    assert monitor.serves("v1.2")
    assert monitor.serves("v1.0") is (asked is not None and CANDIDATE in asked)  # which has not been heard
    monitor.add(told([decision(variant=CANDIDATE, model_version="v1.1")]))
    assert not monitor.serves("v1.0")
    assert monitor.serves("v1.1") is (asked is None or CANDIDATE in asked)


def test_the_memory_of_a_node_is_the_largest_that_anybody_still_tells_of() -> None:
    now = [0.0]
    monitor = MonitorState(100, np.random.default_rng(0), lambda: now[0])
    for name, share in (("a", 0.3), ("b", 0.7), ("a", 0.4)):
        monitor.add(told([MalformedRequest("not JSON")], by=router(name, memory=share)))
    assert monitor.snapshot()["memory"] == {"node of a": 0.4, "node of b": 0.7}
    monitor.add(Told("c", memory={"node of a": 0.5, "node of b": 0.6}))
    assert monitor.snapshot()["memory"] == {"node of a": 0.5, "node of b": 0.7}
    now[0] = SILENT_S / 2
    monitor.add(told([], by=router("a", memory=0.4)))
    now[0] = SILENT_S + 1
    assert monitor.snapshot()["memory"] == {"node of a": 0.4}
    assert monitor.snapshot()["errors"] == {"malformed": 1}  # of the one that is gone
    now[0] = 3 * SILENT_S
    assert monitor.snapshot()["memory"] == {}


def test_what_a_model_saw_is_looked_at_once_however_often_it_is_told() -> None:
    reference = load_bundle(ROOT / "models/v1.0").reference
    assert reference is not None
    monitor, by = state(), router()
    monitor.learn("sha256:0", Learnt("v1.0", reference))
    rows = np.random.default_rng(0).normal(size=(150, 23)).astype(np.float32)
    by.record([decision(seen=row) for row in rows[:60]], 1.0)
    monitor.add(by.take())
    by.failed()
    by.record([decision(seen=row) for row in rows[60:99]], 1.0)
    monitor.add(by.take())
    by.arrived()
    assert monitor.drift["sha256:0"].latest is None
    monitor.add(told([decision(seen=rows[99])], by=by))
    assert monitor.drift["sha256:0"].latest is not None


def test_a_snapshot_does_not_change_afterwards() -> None:
    monitor = state()
    monitor.add(told([decision()]))
    before = monitor.snapshot()
    monitor.add(told([decision(), MalformedRequest("not JSON")]))
    assert before["variants"]["production"]["actions"] == {"HOLD": 1}
    assert before["errors"] == {}


def test_a_snapshot_can_be_sent() -> None:
    monitor = state()
    monitor.add(told([decision(), decision(reason=Reason.DEADLINE), TooFewBars("10 bars given")]))
    assert orjson.loads(encode(monitor.snapshot())) == monitor.snapshot()


def test_ten_thousand_observations_of_a_second_are_all_counted() -> None:
    """Four routers tell four times, as they do in a second; what that takes is for `benchmarks.monitor` to say."""
    monitor, routers = state(), [router(name, room=50_000) for name in "abcd"]
    made = [decision() for _ in range(10_000)]
    for part in range(16):
        monitor.add(told(made[part::16], by=routers[part % 4]))
    counted = monitor.snapshot()
    assert counted["variants"]["production"]["requests"] == 10_000
    assert counted["dropped_observations"] == 0


def test_what_is_looked_at_of_a_large_batch_is_not_always_its_end() -> None:
    """A block that follows itself, from somewhere else each time."""
    starts = set()
    for _ in range(50):
        made = [decision(seen=np.full(2, i, np.float32)) for i in range(500)]
        (seen,) = told(made).seen.values()
        rows = seen.values[:, 0].astype(int).tolist()
        assert rows == list(range(rows[0], rows[0] + 100))
        starts.add(rows[0])
    assert len(starts) > 30
    assert min(starts) < 100
    assert max(starts) > 300


def looked_at(tellings: Iterable[tuple[float, int]]) -> list[int]:
    """How many rows are looked at of a router that tells, at some second, of so many decisions."""
    now = NOW
    by = Gathering("a", 10_000, dict, lambda: now)
    rows = []
    for second, n in tellings:
        now = NOW + timedelta(seconds=second)
        seen = told([decision(seen=np.zeros(2, np.float32)) for _ in range(n)], by=by).seen
        rows.append(sum(len(some.symbols) for some in seen.values()))
    return rows


def test_all_of_a_trickle_is_looked_at_and_of_a_stream_a_hundred_rows_a_second_in_one_piece() -> None:
    quarters = [i / 4 for i in range(9)]
    assert looked_at((at, 25) for at in quarters) == [25] * 9
    assert looked_at((at, 500) for at in quarters) == [100, 0, 0, 0, 100, 0, 0, 0, 100]
    assert looked_at([(0, 60), (0, 60), (0.25, 60), (0, 60), (60, 60)]) == [60, 0, 60, 0, 60]


def test_what_has_not_arrived_is_looked_at_when_it_is_told_again() -> None:
    by = router()
    by.record([decision(seen=np.zeros(2, np.float32)) for _ in range(100)], 1.0)
    first = by.take().seen
    by.failed()
    assert [len(seen.symbols) for seen in (*first.values(), *by.take().seen.values())] == [100, 100]


def test_windows_of_another_length_keep_what_they_have_of_it() -> None:
    monitor, by = state(4), router()
    told([], by=by)
    monitor.add(told([decision(probability=i / 10, timings_ms={"model": float(i)}) for i in range(6)], by=by))
    monitor.resize(3)
    assert list(monitor.variants[PRODUCTION].probabilities) == [0.3, 0.4, 0.5]
    monitor.resize(5)
    monitor.add(
        told([decision(variant=variant, probability=0.9) for variant in (PRODUCTION, CANDIDATE) for _ in "123"])
    )
    production = monitor.variants[PRODUCTION]
    assert list(production.probabilities) == [0.4, 0.5, 0.9, 0.9, 0.9]
    lengths = {len(values) for values in (production.latencies_ms, production.abstained, production.ages_s)}
    assert (lengths, len(monitor.failed)) == ({5}, 5)
    assert len(monitor.variants[CANDIDATE].probabilities) == 3
    snapshot = monitor.snapshot()
    assert (snapshot["latency_window"], snapshot["variants"]["production"]["requests"]) == (5, 9)
    assert snapshot["variants"]["production"]["stages_ms"]["model"]["p50"] == 2.0
