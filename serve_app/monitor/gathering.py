"""What one router gathers for the monitor between two tellings. Gathering never waits and never raises."""

import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from serve_app.errors import ServeAppError
from serve_app.monitor.candles import BarFeed, Candles
from serve_app.monitor.observation import MOST_SEEN, Answered, Told, observations, seen_of
from serve_app.types import Bars, Decision

TOLD = 2_000
"""Decisions that are told together, some 15 ms of a router's event loop; what waits beyond that is told after them."""
PAST = 1_000
"""Decisions that are told again to a monitor that has lost its windows."""


class _Allowance:
    """How much is looked at: all of a trickle, and MOST_SEEN rows a second, in one piece, however busy a router is."""

    def __init__(self) -> None:
        self._spent = 0.0
        self._at: datetime | None = None

    def covers(self, rows: int, now: datetime) -> bool:
        """Whether so many rows may be looked at now; of more than MOST_SEEN only these are."""
        elapsed_s = (now - self._at).total_seconds() if self._at else 0.0
        self._spent = max(0.0, self._spent - MOST_SEEN * max(0.0, elapsed_s))
        self._at = now
        return self._spent + min(rows, MOST_SEEN) <= MOST_SEEN

    def spend(self, rows: int) -> None:
        """Note that so many were looked at."""
        self._spent += min(rows, MOST_SEEN)


class Gathering:
    """A bounded buffer: what does not fit is dropped and counted. Not thread-safe."""

    def __init__(
        self,
        router: str,
        room: int,
        memory: Callable[[], Mapping[str, float]],
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`room`: decisions that may wait; `memory`: the share in use, by node; see `Told`."""
        self._router = router
        self._room = room
        self._memory = memory
        self._clock = clock
        self._allowance = _Allowance()
        self._waiting: deque[Answered] = deque(maxlen=room)
        self._on_the_way: list[Answered] = []
        self._looked_at = 0
        self._past: deque[Answered] = deque(maxlen=PAST)
        self._bars = BarFeed()
        self._bars_on_the_way: Mapping[str, Candles] = {}
        self._errors: Counter[str] = Counter()
        self._errors_told: Counter[str] = Counter()
        self._dropped = 0

    def record(self, answers: Sequence[Decision | ServeAppError], latency_ms: float) -> None:
        """Remember the answers of one call, which took them all the same time."""
        at = self._clock()
        for answer in answers:
            if isinstance(answer, ServeAppError):
                self._errors[answer.code] += 1
                continue
            self._dropped += len(self._waiting) == self._room
            self._waiting.append(Answered(answer, latency_ms, at))

    def refused(self, code: str, n: int) -> None:
        """Remember requests of which nothing was read."""
        self._errors[code] += n

    def see(self, symbol: str, bars: Bars) -> None:
        """Remember the bars that a client sent."""
        self._bars.add(symbol, bars)

    @property
    def waits(self) -> bool:
        """Whether there is a decision to tell, or a bar."""
        return bool(self._waiting) or self._bars.waits

    def take(self) -> Told:
        """Return what there is to tell, TOLD decisions at most. Call `arrived` or `failed` before the next."""
        n, waiting = min(TOLD, len(self._waiting)), len(self._waiting)
        self._on_the_way = [self._waiting.popleft() for _ in range(n)]
        self._tell_errors(n / waiting if waiting else 1.0)
        self._bars_on_the_way = self._bars.take()
        looks = self._allowance.covers(len(self._on_the_way), self._clock())
        looked_at = self._on_the_way if looks else []
        self._looked_at = len(looked_at)
        return self._told(self._on_the_way, looked_at, self._bars_on_the_way)

    def _tell_errors(self, share: float) -> None:
        """Tell of as many errors as of decisions: all at once, they would look like an outage of a few seconds."""
        for code, n in self._errors.items():
            told = self._errors_told[code]
            self._errors_told[code] = told + math.ceil(share * (n - told))

    def arrived(self) -> None:
        """Note that what was taken has been heard."""
        self._past.extend(self._on_the_way)
        self._allowance.spend(self._looked_at)
        self._on_the_way = []
        self._bars.arrived(self._bars_on_the_way)

    def failed(self) -> None:
        """Note that it may not have been, so that it is told again; an id keeps it from being counted twice."""
        room = self._room - len(self._waiting)
        kept = self._on_the_way[max(0, len(self._on_the_way) - room) :]
        self._dropped += len(self._on_the_way) - len(kept)
        self._waiting.extendleft(reversed(kept))
        self._on_the_way = []

    def past(self) -> Told:
        """Return what was told last, for a monitor that does not know it any more; bars are told again too."""
        self._bars.forget()
        return self._told(list(self._past), self._past, {})

    def _told(self, answers: Sequence[Answered], looked_at: Iterable[Answered], bars: Mapping[str, Candles]) -> Told:
        return Told(
            self._router,
            observations(answers),
            seen_of(looked_at),
            bars,
            dict(self._errors_told),
            self._dropped,
            self._memory(),
        )
