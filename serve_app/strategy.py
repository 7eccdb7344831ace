"""The strategy stage: probability and position → action. Needs no model, so exits work when the model does not."""

from dataclasses import dataclass, replace
from datetime import timedelta

from serve_app.batches import ActionBatch, PositionBatch
from serve_app.errors import InvalidPosition
from serve_app.types import Action, HoldingUnit, Position, PositionStatus, Thresholds

_HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Strategy:
    """The rules: enter at or above the signal threshold; leave on time first, then at or below the exit threshold."""

    thresholds: Thresholds
    bar_interval: timedelta

    def held(self, position: Position) -> float:
        """Return how long a position has been held, in the bundle's own unit.

        A bundle that holds in bars counts `time_in_position_bars`; given only hours, it counts whole and partial bar
        intervals that passed by the clock. Raises InvalidPosition for a LONG position without a usable time.
        """
        hours, bars = position.time_in_position_hours, position.time_in_position_bars
        for name, value in (("time_in_position_hours", hours), ("time_in_position_bars", bars)):
            if value is not None and not 0 <= value < float("inf"):
                raise InvalidPosition(f"position.{name} is {value}; it must be a finite number >= 0", field=name)
        interval_hours = self.bar_interval / _HOUR
        if self.thresholds.holding_unit is HoldingUnit.BARS:
            time = bars if bars is not None else hours and hours / interval_hours
        else:
            time = hours if hours is not None else bars and bars * interval_hours
        if time is None and position.status is PositionStatus.LONG:
            unit = self.thresholds.holding_unit
            raise InvalidPosition(f"a LONG position needs position.time_in_position_{unit}", field="time_in_position")
        return time or 0.0

    def exit_on_time(self, is_long: bool, held: float) -> bool:
        """Whether the position has been held for the longest allowed time."""
        return is_long and held >= self.thresholds.max_holding_period

    def action_without_model(self, is_long: bool, held: float) -> Action:
        """Return the action that needs no probability: the time exit of a LONG position, else HOLD."""
        return Action.SELL if self.exit_on_time(is_long, held) else Action.HOLD

    def action(self, probability: float, is_long: bool, held: float) -> Action:
        """Return the action for one probability and position."""
        if not is_long:
            return Action.BUY if probability >= self.thresholds.signal_threshold else Action.HOLD
        exit_threshold = self.thresholds.exit_threshold
        below_exit = exit_threshold is not None and probability <= exit_threshold
        return Action.SELL if self.exit_on_time(is_long, held) or below_exit else Action.HOLD

    async def run(self, batch: PositionBatch) -> ActionBatch:
        """Decide B rows, by the thresholds of the batch where it has some."""
        rules = self if batch.thresholds is None else replace(self, thresholds=batch.thresholds)
        rows = zip(batch.probabilities.tolist(), batch.is_long.tolist(), batch.held.tolist(), strict=True)
        return ActionBatch(batch.digest, tuple(rules.action(p, is_long, held) for p, is_long, held in rows))
