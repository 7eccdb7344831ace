"""Decisions as they are kept."""

from datetime import UTC, datetime

import numpy as np
import pytest

from serve_app.journal.record import pack, pack_row, unpack, unpack_row
from serve_app.types import Row
from tests.unit.decisions import ABSTAINED, DECIDED

TIMES = np.array(["2026-03-01T00:00", "2026-03-01T01:00:00.000001"], dtype="datetime64[us]")
VALUES = np.array([[1.0, np.nan, -0.0], [1e-308, 2**53 + 1.0, 0.1]])


@pytest.mark.parametrize(
    "row", [Row(3, bars=VALUES, timestamps=TIMES), Row(0, features=VALUES.T, is_long=True, held=2.5)]
)
def test_a_row_comes_back_bit_for_bit(row: Row) -> None:
    again = unpack_row(pack_row(row))
    assert (again.asset_id, again.is_long, again.held) == (row.asset_id, row.is_long, row.held)
    for name in ("bars", "timestamps", "features"):
        before, after = getattr(row, name), getattr(again, name)
        assert (before is None) == (after is None)
        if before is not None:
            assert (after.dtype, after.shape, after.tobytes()) == (before.dtype, before.shape, before.tobytes())


def test_a_decision_comes_back_by_the_columns_of_its_table() -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC)
    record = unpack(pack(DECIDED, Row(1, features=VALUES), at))
    assert record["at"] == at
    assert (record["decision_id"], record["probability"], record["reason"]) == ("d-1", 0.7, None)
    assert (record["timestamp"], record["timings_ms"]) == (DECIDED.timestamp, {"model": 1.5})
    record = unpack(pack(ABSTAINED, Row(1, features=VALUES), at))
    assert (record["probability"], record["reason"], record["timestamp"]) == (None, "deadline", None)
