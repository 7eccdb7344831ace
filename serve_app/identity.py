"""What tells decisions apart: ids that follow from what was asked, so that one that is asked for again is known."""

import hashlib
import uuid
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

from serve_app.types import Bars, FeatureRows, SignalRequest

_DECISIONS = uuid.UUID("6f1c5a0e-3f0b-5e7c-9d7e-5b1f4c2f9a11").bytes
"""Namespace of decision ids."""

Identify = Callable[[int, SignalRequest], str]
"""Returns the id of the decision on a request, given its place in the call."""


def decision_id(identity: str, place: int) -> str:
    """Derive the id of a decision (UUIDv5) from what its call goes by, and its place in it."""
    # What uuid.uuid5 returns as text, at a third of its time.
    name = hashlib.sha1(_DECISIONS + f"{identity}/{place}".encode(), usedforsecurity=False).hexdigest()
    variant = "89ab"[int(name[16], 16) & 3]
    return f"{name[:8]}-{name[8:12]}-5{name[13:16]}-{variant}{name[17:20]}-{name[20:32]}"


def timestamp_of(request: SignalRequest) -> datetime | None:
    """When the last bar was, if the client said."""
    if not isinstance(request.history, Bars):
        return request.history.timestamp
    last: datetime = request.history.timestamp[-1].item()
    return last.replace(tzinfo=UTC)


def _asked_about(request: SignalRequest) -> str:
    """Return what tells a request from others on its symbol: its time, and its numbers, since a bar may be growing."""
    history, checksum = request.history, 0
    columns = [history.values] if isinstance(history, FeatureRows) else [x for _, x in sorted(history.columns.items())]
    for values in columns:
        checksum = zlib.crc32(values.tobytes(), checksum)
    return f"{timestamp_of(request)} {checksum}"


def by_request(request_id: str) -> Identify:
    """Derive ids from a request id and what is asked.

    So a request that a proxy sends twice is decided under one id, and requests of a client who gives all of them one
    request id are not.
    """

    def identify(place: int, asked: SignalRequest) -> str:
        # In this order no text runs into the next: only the symbol, which is last, may hold any character.
        position = asked.position
        held = f"{position.status}/{position.time_in_position_hours}/{position.time_in_position_bars}"
        return decision_id(f"{request_id} {_asked_about(asked)} {held} {asked.symbol}", place)

    return identify
