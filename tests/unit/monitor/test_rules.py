"""Each rule exactly at its boundary: what equals a limit does not breach it."""

from datetime import timedelta

import numpy as np
import pytest
from pydantic import ValidationError

from serve_app.config import RULES, AlertName, AlertsConfig, Rule
from serve_app.errors import ServeAppError
from serve_app.monitor import Judged, MonitorState, Reading, readings
from serve_app.monitor.gathering import TOLD
from serve_app.types import Reason, VariantName
from tests.unit.monitor.answers import NOW, decision, router, state, told

PRODUCTION = VariantName.PRODUCTION
DEFAULTS = AlertsConfig()


def read(
    alert: AlertName,
    monitor: MonitorState,
    judged: dict[VariantName, Judged] | None = None,
    config: AlertsConfig = DEFAULTS,
) -> Reading:
    (found,) = [one for one in readings(monitor, judged or {}, config) if one.alert is alert]
    return found


def outcomes(right: int, n: int) -> dict[VariantName, Judged]:
    """So many right of n; the first ones."""
    probabilities = np.tile([0.5, 0.49], (n + 1) // 2)[:n]
    labels = (probabilities >= 0.5).astype(float)
    labels[right:] = 1 - labels[right:]
    return {PRODUCTION: Judged(probabilities, labels)}


@pytest.mark.parametrize(("right", "breached"), [(56, False), (55, False), (54, True)])
def test_rolling_accuracy_of_55_of_100_is_well_and_54_is_not(right: int, breached: bool) -> None:
    monitor = state()
    monitor.add(told([decision()]))
    reading = read(AlertName.ROLLING_ACCURACY, monitor, outcomes(right, 100))
    assert (reading.value, reading.breached, reading.subject) == (right / 100, breached, "production")


def test_rolling_accuracy_is_of_the_latest_100_and_of_no_fewer() -> None:
    monitor = state()
    monitor.add(told([decision()]))
    assert read(AlertName.ROLLING_ACCURACY, monitor, outcomes(0, 99)).value is None
    assert read(AlertName.ROLLING_ACCURACY, monitor, outcomes(120, 200)).value == 0.2


@pytest.mark.parametrize(("after", "breached"), [(0.25, False), (0.375, False), (0.3751, True), (0.1249, True)])
def test_a_mean_prediction_that_has_moved_by_the_limit_is_well(after: float, breached: bool) -> None:
    config = AlertsConfig(prediction_shift=Rule(limit=0.125, window=8))
    monitor = state()
    monitor.add(told([decision(probability=p) for p in [0.9, *[0.25] * 8, *[after] * 8]]))
    reading = read(AlertName.PREDICTION_SHIFT, monitor, config=config)
    assert reading.value == pytest.approx(abs(after - 0.25))
    assert reading.breached is breached


@pytest.mark.parametrize(("age_s", "breached"), [(7_200, False), (7_201, True)])
def test_bars_as_old_as_the_limit_are_well_and_older_ones_are_not(age_s: int, breached: bool) -> None:
    monitor = state()
    monitor.add(told([decision(timestamp=NOW - timedelta(seconds=age_s)) for _ in range(100)]))
    reading = read(AlertName.BAR_AGE, monitor, config=AlertsConfig(bar_age=RULES[AlertName.BAR_AGE]))
    assert (reading.value, reading.breached) == (age_s, breached)


def test_the_age_of_bars_alarms_nobody_who_did_not_ask() -> None:
    monitor = state()
    monitor.add(told([decision() for _ in range(100)]))  # of 2013
    assert AlertName.BAR_AGE not in {one.alert for one in readings(monitor, {}, DEFAULTS)}


@pytest.mark.parametrize("n", [1000, 1001, 1999])
def test_a_first_window_raises_no_alarm(n: int) -> None:
    monitor = state()
    monitor.add(told([decision(probability=0.1 if i < n - 1000 else 0.9) for i in range(n)]))
    assert read(AlertName.PREDICTION_SHIFT, monitor).value is None
    monitor.add(told([decision(probability=0.9) for _ in range(2000 - n)]))
    assert read(AlertName.PREDICTION_SHIFT, monitor).value is not None


@pytest.mark.parametrize(("latency", "breached"), [(100.0, False), (100.001, True)])
def test_a_latency_of_100_ms_is_well(latency: float, breached: bool) -> None:
    monitor, by = state(), router()
    monitor.add(told([decision() for _ in range(94)], 1.0, by))
    monitor.add(told([decision() for _ in range(5)], latency, by))
    assert read(AlertName.INFERENCE_LATENCY, monitor).value is None
    monitor.add(told([decision()], latency, by))
    assert read(AlertName.INFERENCE_LATENCY, monitor).value == pytest.approx(latency)
    assert read(AlertName.INFERENCE_LATENCY, monitor).breached is breached


@pytest.mark.parametrize(("share", "breached"), [(0.8, False), (0.8001, True)])
def test_memory_of_80_percent_is_well(share: float, breached: bool) -> None:
    monitor = state()
    monitor.add(told([], by=router("a", memory=share)))
    monitor.add(told([], by=router("b", memory=0.1)))
    reading = read(AlertName.MEMORY, monitor)
    assert (reading.value, reading.breached) == (share, breached)
    assert "80% of the memory of node of a, or of a GPU in it, is in use" in reading.message


@pytest.mark.parametrize(("answered", "failed"), [(494, 6), (4_200, 1_800), (10, 90)])
def test_the_error_rate_is_the_share_that_failed_however_many_are_told_at_once(answered: int, failed: int) -> None:
    monitor, by = state(), router()
    monitor.add(told([], by=by))
    by.record([decision() for _ in range(answered)] + [ServeAppError("x")] * failed, 1.0)
    rates: list[float] = []
    while by.waits:  # in pieces
        monitor.add(by.take())
        by.arrived()
        rates.append(read(AlertName.ERROR_RATE, monitor).value or 0.0)
    assert rates == pytest.approx([failed / (answered + failed)] * -(-answered // TOLD), abs=0.011)


@pytest.mark.parametrize(("failed", "breached"), [(5, False), (6, True)])
def test_an_error_rate_of_5_percent_is_well(failed: int, breached: bool) -> None:
    monitor, by = state(), router()
    monitor.add(told([], by=by))
    monitor.add(told([decision() for _ in range(99 - failed)] + [ServeAppError("x")] * failed, by=by))
    assert read(AlertName.ERROR_RATE, monitor).value is None
    monitor.add(told([decision()], by=by))
    assert read(AlertName.ERROR_RATE, monitor).value == failed / 100
    assert read(AlertName.ERROR_RATE, monitor).breached is breached


@pytest.mark.parametrize(("silent", "breached"), [(5, False), (6, True)])
def test_abstentions_of_5_percent_are_well(silent: int, breached: bool) -> None:
    monitor = state()
    monitor.add(told([decision(reason=Reason.DEADLINE if i < silent else None) for i in range(100)]))
    assert read(AlertName.ABSTENTION_RATE, monitor).breached is breached


def test_a_rule_that_is_null_is_no_rule() -> None:
    monitor = state()
    monitor.add(told([decision()]))
    off = AlertsConfig.model_validate({**dict.fromkeys(RULES), "loss_increase": False})
    assert list(readings(monitor, outcomes(0, 100), off)) == []


def test_what_a_configuration_does_not_say_of_a_rule_stays_as_it_is() -> None:
    given = AlertsConfig.model_validate({"inference_latency": {"limit": 50}, "error_rate": {"window": 7}})
    assert given.inference_latency == Rule(limit=50, window=100)
    assert given.error_rate == Rule(limit=0.05, window=7)
    with pytest.raises(ValidationError, match="windwo"):
        AlertsConfig.model_validate({"memory": {"windwo": 7}})
