"""Warm-up: how many bars each feature really reads, next to what it declares."""

from dataclasses import dataclass, replace

from serve_app.audit.histories import Histories, Progress, silent
from serve_app.errors import TooFewBars
from serve_app.preprocess import FeatureSet, HistoryRules
from serve_app.preprocess.feature_sets import Feature, Frame
from serve_app.preprocess.memory import measure_memory
from serve_app.types import FloatArray, TimeArray

SPARE = 50
"""Bars beyond the declared memory, so that a feature that reads more than it declares shows."""


@dataclass(frozen=True, slots=True)
class FeatureMemory:
    """Bars that one feature declares and is measured to read."""

    feature: str
    declared: int
    measured: int

    @property
    def ok(self) -> bool:
        """Whether the two agree."""
        return self.declared == self.measured


@dataclass(frozen=True, slots=True)
class WarmupReport:
    """Every feature's memory, and what a window of `lookback_window` rows needs in all."""

    features: tuple[FeatureMemory, ...]
    lookback_window: int
    declared: int
    """`bars_needed` by declaration."""
    symbols: tuple[str, ...]
    """Whose bars were used."""

    @property
    def measured(self) -> int:
        """`bars_needed` by measurement."""
        return max(feature.measured for feature in self.features) + self.lookback_window - 1

    @property
    def ok(self) -> bool:
        """Whether every feature reads what it declares."""
        return self.declared == self.measured and all(feature.ok for feature in self.features)


def audit_warmup(rules: HistoryRules, histories: Histories, progress: Progress = silent) -> WarmupReport:
    """Measure every feature on the latest bars of every symbol; the longest reading counts. Raises TooFewBars."""
    feature_set = rules.feature_set
    needed = feature_set.memory + SPARE
    usable = {symbol: bars.tail(needed) for symbol, bars in histories.bars.items() if len(bars) >= needed}
    if not usable:
        raise TooFewBars(f"no symbol has the {needed} bars that measuring needs", needed=needed)
    measured = dict.fromkeys(feature_set.features, 0)
    for done, bars in enumerate(usable.values(), start=1):
        stacked = feature_set.stack(bars, rules.exogenous)
        one = measure_memory(_computable(feature_set, stacked, bars.timestamp), stacked, bars.timestamp)
        measured = {name: max(so_far, one[name]) for name, so_far in measured.items()}
        progress(done, len(usable))
    return WarmupReport(
        features=tuple(
            FeatureMemory(name, feature.memory, measured[name]) for name, feature in feature_set.definitions.items()
        ),
        lookback_window=rules.lookback_window,
        declared=rules.bars_needed,
        symbols=tuple(usable),
    )


def _computable(feature_set: FeatureSet, stacked: FloatArray, timestamp: TimeArray) -> FeatureSet:
    """Correct declarations that are so much too long that a computation gives more rows than were asked for."""
    frame = Frame(dict(zip(feature_set.columns, stacked.T[:, None], strict=True)), timestamp[None])

    def corrected(feature: Feature) -> Feature:
        implied = len(stacked) - feature.compute(frame).shape[-1] + 1
        return replace(feature, memory=min(feature.memory, implied))

    definitions = {name: corrected(feature) for name, feature in feature_set.definitions.items()}
    return replace(feature_set, definitions=definitions)
