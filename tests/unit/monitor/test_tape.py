"""Bars are told once, and charts show what clients sent and what was decided at it."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from serve_app.monitor.candles import LENGTH, SYMBOLS, TOLD_SYMBOLS, BarFeed, candles
from serve_app.monitor.tape import LATEST
from serve_app.types import Action, Bars, FloatArray, Reason
from tests.factories import with_value
from tests.unit.monitor.answers import decision, router, state

DAY = np.timedelta64(1, "D")
START = np.datetime64("2013-01-01", "us")


def bars(n: int, first: int = 0) -> Bars:
    """Bars of consecutive days, each price a number of its own."""
    days = np.arange(first, first + n, dtype=np.float64)
    prices: dict[str, FloatArray] = {name: days + i / 10 for i, name in enumerate(("open", "high", "low", "close"))}
    return Bars(START + days.astype(int) * DAY, {**prices, "volume": np.ones(n)})


def told_bars(feed: BarFeed, symbol: str, given: Bars) -> list[int]:
    """The days that are told of once these bars have come."""
    feed.add(symbol, given)
    new = feed.take()
    feed.arrived(new)
    return [int((time - START) / DAY) for time in new[symbol].times] if symbol in new else []


def test_each_bar_is_told_once() -> None:
    feed = BarFeed()
    assert told_bars(feed, "IBM", bars(3)) == [0, 1, 2]
    assert told_bars(feed, "IBM", bars(3)) == []
    assert told_bars(feed, "IBM", bars(3, first=1)) == [3]
    assert told_bars(feed, "AAPL", bars(2)) == [0, 1]


def test_what_was_not_heard_is_told_again_with_the_next() -> None:
    feed = BarFeed()
    feed.add("IBM", bars(3))
    assert len(feed.take()["IBM"].times) == 3
    assert told_bars(feed, "IBM", bars(4)) == [0, 1, 2, 3]


def test_whoever_has_lost_the_bars_is_told_all_of_them() -> None:
    feed = BarFeed()
    assert told_bars(feed, "IBM", bars(3)) == [0, 1, 2]
    feed.forget()
    assert told_bars(feed, "IBM", bars(3)) == [0, 1, 2]


def test_the_symbols_that_are_followed_are_bounded() -> None:
    feed = BarFeed()
    for number in range(SYMBOLS + 5):
        feed.add(f"S{number}", bars(1))
    taken = [symbol for _ in range(SYMBOLS // TOLD_SYMBOLS) for symbol in feed.take()]
    assert taken == [f"S{number}" for number in range(SYMBOLS)]
    assert not feed.waits


def test_a_bar_that_lacks_a_price_is_left_out() -> None:
    found = candles(with_value(bars(3), "high", 1, np.nan), None)
    assert found is not None
    assert found.times.tolist() == [START.item(), (START + 2 * DAY).item()]


def test_bars_without_prices_are_none() -> None:
    only_close = Bars(bars(2).timestamp, {"close": np.ones(2)})
    assert candles(only_close, None) is None


def test_a_history_is_cut_to_what_is_shown() -> None:
    found = candles(bars(LENGTH + 10), None)
    assert found is not None
    assert len(found.times) == LENGTH
    assert found.prices[-1].tolist() == [LENGTH + 9 + i / 10 for i in range(4)]


def day(n: int) -> datetime:
    return datetime(2013, 1, 1, tzinfo=UTC) + timedelta(days=n)


def test_a_chart_shows_bars_and_what_was_decided_at_them() -> None:
    monitor, asked = state(), router()
    asked.see("IBM", bars(3))
    made = [
        decision(symbol="IBM", timestamp=day(1), action=Action.BUY, probability=0.8),
        decision(symbol="IBM", timestamp=day(2), reason=Reason.DEADLINE),
        decision(symbol="AAPL"),
    ]
    asked.record(made, 5.0)
    monitor.add(asked.take())
    chart = monitor.tape.chart("IBM")
    assert [bar[0] for bar in chart["bars"]] == [day(n).timestamp() for n in range(3)]
    assert chart["bars"][1][1:] == [1.0, 1.1, 1.2, 1.3]
    assert shown(chart["decisions"]) == [
        (made[0].decision_id, day(1), Action.BUY, 0.8, None),
        (made[1].decision_id, day(2), Action.HOLD, None, Reason.DEADLINE),
    ]


def shown(decisions: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    names = ("decision_id", "timestamp", "action", "probability", "reason")
    return [tuple(one[name] for name in names) for one in decisions]


def test_bars_of_two_routers_become_one_history() -> None:
    monitor = state()
    for name, given in (("a", bars(2, first=2)), ("b", bars(3))):
        one = router(name)
        one.see("IBM", given)
        monitor.add(one.take())
    times = [bar[0] for bar in monitor.tape.chart("IBM")["bars"]]
    assert times == [day(n).timestamp() for n in range(4)]


def test_the_newest_decisions_come_first_and_are_bounded() -> None:
    monitor, asked = state(), router()
    made = [decision(symbol=f"S{n % 3}") for n in range(LATEST + 20)]
    asked.record(made, 1.0)
    monitor.add(asked.take())
    latest = monitor.tape.latest()
    assert [one["decision_id"] for one in latest["decisions"]] == [one.decision_id for one in made[: -LATEST - 1 : -1]]
    assert latest["symbols"] == ["S0", "S1", "S2"]


def test_a_symbol_that_nobody_asked_about_has_an_empty_chart() -> None:
    assert state().tape.chart("IBM") == {"symbol": "IBM", "bars": [], "decisions": []}


def test_a_decision_that_is_told_twice_is_shown_once() -> None:
    monitor, asked = state(), router()
    asked.record([decision()], 1.0)
    said = asked.take()
    monitor.add(said)
    monitor.add(said)
    assert len(monitor.tape.latest()["decisions"]) == 1


def test_a_monitor_that_begins_again_shows_what_it_is_told_again() -> None:
    monitor, asked = state(), router()
    made = decision()
    asked.record([made], 1.0)
    monitor.restore({}, [made.decision_id])  # the journal has it already
    monitor.add(asked.take())
    assert [one["decision_id"] for one in monitor.tape.latest()["decisions"]] == [made.decision_id]
