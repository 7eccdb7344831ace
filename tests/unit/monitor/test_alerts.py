from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from serve_app.config import AlertName
from serve_app.monitor import Alert, AlertBook, AlertState, Reading

START = datetime(2026, 1, 1, tzinfo=UTC)


def reading(value: float | None, subject: str | None = None, alert: AlertName = AlertName.ERROR_RATE) -> Reading:
    return Reading(alert, subject, value, 0.05, value is not None and value > 0.05, f"{value}")


def book(pending_s: float = 0, resolve_after_s: float = 0) -> AlertBook:
    return AlertBook(pending_s, resolve_after_s)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def states(one: AlertBook, values: Sequence[float | None]) -> list[str]:
    """What is told, a value a second."""
    return [f"{s} {e.state}" for s, value in enumerate(values) for e in one.update([reading(value)], at(s))]


def test_an_alert_fires_once_and_is_resolved_once() -> None:
    assert states(book(), [0.0, 0.2, 0.3, 0.2, 0.05, 0.0]) == ["1 firing", "4 resolved"]


def test_what_is_wrong_for_a_moment_is_not_told() -> None:
    one = book(pending_s=3)
    assert states(one, [0.2, 0.2, 0.0, 0.2, 0.2, 0.2]) == []
    assert [alert.state for alert in one.alerts()] == [AlertState.PENDING]
    assert [event.state for event in one.update([reading(0.2)], at(6))] == [AlertState.FIRING]


def test_an_alert_at_its_limit_does_not_flap() -> None:
    assert states(book(resolve_after_s=3), [0.2, 0.0, 0.2, 0.0, 0.0, 0.2] + [0.0] * 5) == ["0 firing", "9 resolved"]


def test_where_nothing_is_known_nothing_changes() -> None:
    one = book()
    assert states(one, [None, 0.2, None, None]) == ["1 firing"]
    assert [alert.message for alert in one.alerts()] == ["0.2"]


def test_what_fires_is_shown_with_the_limit_that_it_is_held_against_now() -> None:
    """Another one, where the graph was deployed again with other rules."""
    one = book()
    one.update([reading(0.2)], START)
    assert one.update([replace(reading(0.2), limit=0.1)], at(1)) == []
    assert [(alert.state, alert.limit, alert.since) for alert in one.alerts()] == [(AlertState.FIRING, 0.1, START)]


def test_subjects_have_alerts_of_their_own() -> None:
    one = book()
    one.update([reading(0.2, "production"), reading(0.0, "candidate")], START)
    told = one.update([reading(0.0, "production"), reading(0.2, "candidate")], at(1))
    assert [(event.subject, str(event.state)) for event in told] == [
        ("production", "resolved"),
        ("candidate", "firing"),
    ]
    assert [alert.subject for alert in one.alerts()] == ["candidate"]


def test_what_fires_already_does_not_fire_again_after_a_restart() -> None:
    before = book()
    told = [event for s, value in enumerate((0.2, 0.0, 0.3)) for event in before.update([reading(value)], at(s))]
    after = book()
    after.restore(told)
    assert [(alert.state, alert.since) for alert in after.alerts()] == [(AlertState.FIRING, at(2))]
    assert after.update([reading(0.2)], at(3)) == []
    assert [event.state for event in after.update([reading(0.0)], at(4))] == [AlertState.RESOLVED]


def test_an_alert_has_one_id_whoever_tells_of_it() -> None:
    one = book()
    fired, resolved = (event for s, value in enumerate((0.2, 0.0)) for event in one.update([reading(value)], at(s)))
    assert fired.id == replace(fired, value=0.9, message="more of it").id != resolved.id
    assert fired.document()["id"] == fired.id


def test_what_the_model_could_mend_asks_for_training() -> None:
    one = book()
    (drift,) = one.update([reading(2.0, "v1.0", AlertName.FEATURE_DRIFT)], START)
    (memory,) = one.update([reading(0.9, None, AlertName.MEMORY)], START)
    (resolved,) = one.update([reading(0.0, "v1.0", AlertName.FEATURE_DRIFT)], at(1))
    assert [event.wants_retraining for event in (drift, memory, resolved)] == [True, False, False]


def has_left(_: Alert) -> str:
    return "it has left"


def stays(_: Alert) -> None:
    """It has not left."""


def test_an_alert_of_what_has_left_is_resolved_at_once_and_says_so() -> None:
    one = book(resolve_after_s=60)
    (fired,) = one.update([reading(0.2)], START)
    (resolved,) = one.update([reading(0.2)], at(1), has_left)
    assert resolved == replace(fired, state=AlertState.RESOLVED, since=at(1), message="it has left")
    assert one.update([], at(2), has_left) == []
    assert [event.state for event in one.update([reading(0.2)], at(3))] == [AlertState.FIRING]


def test_what_has_left_before_it_fired_is_not_told() -> None:
    one = book(pending_s=3)
    one.update([reading(0.2)], START)
    assert one.update([], at(1), has_left) == []
    assert one.alerts() == []
    assert states(one, [0.2, 0.2, 0.2]) == []  # what returns begins anew


def test_an_alert_says_of_which_model_it_is_from_the_first_reading_that_does() -> None:
    one = book()
    versions = (None, "v1.0", "v1.1")
    for s, version in enumerate(versions):
        one.update([replace(reading(0.2), model_version=version)], at(s))
    assert [alert.model_version for alert in one.alerts()] == ["v1.0"]


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.2, None]), st.booleans()), max_size=60),
    st.integers(0, 3),
    st.integers(0, 3),
)
def test_firing_and_resolved_alternate_whatever_is_measured_and_leaves(
    seconds: list[tuple[float | None, bool]], pending: int, resolve: int
) -> None:
    one, events = book(pending, resolve), []
    for s, (value, leaves) in enumerate(seconds):
        events += one.update([reading(value)], at(s), has_left if leaves else stays)
    told = [str(event.state) for event in events]
    assert len({event.since for event in events}) == len(events)
    assert told == ["firing", "resolved"] * (len(told) // 2) + ["firing"] * (len(told) % 2)
