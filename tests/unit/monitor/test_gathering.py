"""What a router gathers is told in pieces, in its order, and nothing is lost of which no count says so."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve_app.monitor import Gathering, Told, gathering
from serve_app.monitor.candles import TOLD_SYMBOLS
from serve_app.monitor.gathering import TOLD
from serve_app.types import Bars
from tests.unit.monitor.answers import decision, router


def recorded(by: Gathering, n: int) -> list[str]:
    made = [decision() for _ in range(n)]
    by.record(made, 1.0)
    return [one.decision_id for one in made]


def ids(told: Told) -> list[str]:
    return [one.decision_id for one in told.decisions]


def test_so_many_decisions_are_told_at_once_and_what_waits_beside_them_after_them() -> None:
    by = router()
    made = recorded(by, 2 * TOLD + 1)
    pieces = []
    while by.waits:
        pieces.append(ids(by.take()))
        by.arrived()
    assert [len(piece) for piece in pieces] == [TOLD, TOLD, 1]
    assert [*chain(*pieces)] == made


def test_what_was_not_heard_is_told_again_before_what_waits() -> None:
    by = router()
    made = recorded(by, TOLD + 1)
    by.take()
    made += recorded(by, 1)
    by.failed()
    again = ids(by.take())
    by.arrived()
    assert [*again, *ids(by.take())] == made


FEW = 10
TELLINGS = st.lists(st.tuples(st.integers(0, FEW + 2), st.booleans()), max_size=30)
"""How many decisions come while something is on the way, and whether that arrives."""
DRAIN = [(0, True)] * 5


@given(TELLINGS, st.sampled_from([1, FEW // 2, FEW + 5, 3 * FEW]))
def test_whatever_fails_each_decision_arrives_once_and_in_order_or_is_counted_as_dropped(
    tellings: Sequence[tuple[int, bool]], room: int
) -> None:
    by, made, heard = router(room=room), list[str](), list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gathering, "TOLD", FEW)
        told = by.take()
        for n, arrives in [*tellings, *DRAIN]:
            made += recorded(by, n)
            if arrives:
                heard += ids(told)
                by.arrived()
            else:
                by.failed()
            told = by.take()
    assert not by.waits
    order = {one: i for i, one in enumerate(made)}
    places = [order[one] for one in heard]
    assert places == sorted(set(places))
    assert len(heard) + told.dropped == len(made)


def test_bars_of_many_symbols_are_told_in_pieces_too() -> None:
    by = router()
    bars = Bars(
        np.arange(3).astype("datetime64[s]"), {name: np.ones(3) for name in ("open", "high", "low", "close", "volume")}
    )
    for symbol in range(TOLD_SYMBOLS + 1):
        by.see(str(symbol), bars)
    first = by.take().bars
    by.arrived()
    assert by.waits
    assert (len(first), list(by.take().bars)) == (TOLD_SYMBOLS, [str(TOLD_SYMBOLS)])
    assert not by.waits
