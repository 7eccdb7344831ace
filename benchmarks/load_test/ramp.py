"""How many users there are at which time."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ramp:
    """From one user up to `users`, and down again to one, who stays while the graph cools; all in seconds.

    The last user is there so that replicas go away under traffic, as in production.
    """

    users: int = 120
    ramp_up: float = 30.0
    hold: float = 40.0
    ramp_down: float = 20.0
    cool: float = 60.0

    @property
    def duration(self) -> float:
        """When the last user leaves."""
        return self.ramp_up + self.hold + self.ramp_down + self.cool

    def users_at(self, t: float) -> int | None:
        """Return how many users there are after `t` seconds; None when the test is over."""
        if t >= self.duration:
            return None
        full_until = self.ramp_up + self.hold
        share = 1.0
        if t < self.ramp_up:
            share = t / self.ramp_up
        elif t >= full_until + self.ramp_down:
            share = 0.0
        elif t >= full_until:
            share = 1 - (t - full_until) / self.ramp_down
        return max(1, math.ceil(self.users * share))
