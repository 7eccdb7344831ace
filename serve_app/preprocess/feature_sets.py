"""Feature sets: names, order, memory and computation of what a model sees. One code path for training and serving."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from serve_app.errors import FeaturesNeeded
from serve_app.preprocess import indicators as ta
from serve_app.types import Bars, FloatArray, TimeArray

OPEN, HIGH, LOW, CLOSE, VOLUME = REQUIRED_COLUMNS = ("open", "high", "low", "close", "volume")
VWAP = "vwap"
SENTIMENT = "sentiment_score_hourly_ffill"
OBV_BARS = 100


@dataclass(frozen=True, slots=True)
class Frame:
    """Input columns (B, N) by name, and timestamps (B, N)."""

    columns: Mapping[str, FloatArray]
    timestamp: TimeArray

    def __getitem__(self, name: str) -> FloatArray:
        return self.columns[name]

    def tail(self, n: int) -> "Frame":
        """The last `n` bars of every column."""
        return Frame({name: x[..., -n:] for name, x in self.columns.items()}, self.timestamp[..., -n:])


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature: how many bars its value reads, and how it is computed from them."""

    memory: int
    compute: Callable[[Frame], FloatArray]


@dataclass(frozen=True)
class FeatureSet:
    """A named, ordered set of features over fixed input columns."""

    name: str
    definitions: Mapping[str, Feature]
    exogenous: tuple[str, ...]
    """Optional columns that no bar implies; the bundle has a neutral default for each."""
    computed: bool = True
    """False: names only. Clients send the values, and bars say nothing."""

    @property
    def optional_columns(self) -> tuple[str, ...]:
        """Input columns that a client may leave out."""
        return (VWAP, *self.exogenous)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Feature names, in the order the model takes them."""
        return tuple(self.definitions)

    @property
    def columns(self) -> tuple[str, ...]:
        """Input columns, in the order of `stack`."""
        return (*REQUIRED_COLUMNS, *self.optional_columns)

    @property
    def memory(self) -> int:
        """Bars that the longest feature reads."""
        return max(feature.memory for feature in self.definitions.values())

    def bars_needed(self, lookback_window: int) -> int:
        """Bars that a window of `lookback_window` rows reads; 0 for features that are not computed."""
        return self.memory + lookback_window - 1 if self.computed else 0

    def stack(self, bars: Bars, exogenous: Mapping[str, float]) -> FloatArray:
        """Put the columns of `bars` side by side, shape (N, C), defaults in place of absent optional columns.

        An absent vwap is the typical price of each bar; an absent exogenous column is its neutral default.
        """
        typical = (bars.columns[HIGH] + bars.columns[LOW] + bars.columns[CLOSE]) / 3
        defaults = {VWAP: typical, **{name: np.full(len(bars), value) for name, value in exogenous.items()}}
        return np.stack(
            [bars.columns[name] if name in bars.columns else defaults[name] for name in self.columns], axis=-1
        )

    def compute(self, stacked: FloatArray, timestamp: TimeArray, rows: int) -> FloatArray:
        """Compute the last `rows` rows of every feature.

        Shapes: stacked (B, N, C), timestamp (B, N) → (B, rows, F). NaN where the history is too short to define
        a value, and where the input is NaN.
        """
        columns = np.ascontiguousarray(np.moveaxis(stacked, -1, 0))
        frame = Frame(dict(zip(self.columns, columns, strict=True)), timestamp)
        result = np.full((len(self.definitions), len(stacked), rows), np.nan)
        for row, feature in zip(result, self.definitions.values(), strict=True):
            if stacked.shape[1] < feature.memory:
                continue
            values = feature.compute(frame.tail(rows + feature.memory - 1))
            row[:, rows - values.shape[-1] :] = values
        return np.moveaxis(result, 0, -1)


def _column(name: str) -> Feature:
    return Feature(1, lambda f: f[name])


def _macd_signal(f: Frame) -> FloatArray:
    return ta.macd_signal(ta.macd_line(f[CLOSE]))


def _macd_histogram(f: Frame) -> FloatArray:
    line = ta.macd_line(f[CLOSE])
    return line[..., ta.SIGNAL_TAPS - 1 :] - ta.macd_signal(line)


_SIGNAL_MEMORY = ta.EMA_TAPS + ta.SIGNAL_TAPS - 1

TECH23 = FeatureSet(
    name="tech23.v1",
    exogenous=(SENTIMENT,),
    definitions={
        "open": _column(OPEN),
        "high": _column(HIGH),
        "low": _column(LOW),
        "close": _column(CLOSE),
        "volume": _column(VOLUME),
        "vwap": _column(VWAP),
        "SMA_10": Feature(10, lambda f: ta.sma(f[CLOSE], 10)),
        "SMA_20": Feature(20, lambda f: ta.sma(f[CLOSE], 20)),
        "MACD_line": Feature(ta.EMA_TAPS, lambda f: ta.macd_line(f[CLOSE])),
        "MACD_signal": Feature(_SIGNAL_MEMORY, _macd_signal),
        "MACD_hist": Feature(_SIGNAL_MEMORY, _macd_histogram),
        "RSI_14": Feature(15, lambda f: ta.rsi(f[CLOSE])),
        "Stoch_K": Feature(14, lambda f: ta.stochastic_k(f[HIGH], f[LOW], f[CLOSE])),
        "Stoch_D": Feature(16, lambda f: ta.sma(ta.stochastic_k(f[HIGH], f[LOW], f[CLOSE]), 3)),
        "ADX_14": Feature(28, lambda f: ta.adx(f[HIGH], f[LOW])),
        "ATR_14": Feature(15, lambda f: ta.atr(f[HIGH], f[LOW], f[CLOSE])),
        "BB_bandwidth": Feature(20, lambda f: ta.bollinger_bandwidth(f[CLOSE])),
        "OBV": Feature(OBV_BARS + 1, lambda f: ta.on_balance_volume(f[CLOSE], f[VOLUME], OBV_BARS)),
        "Volume_SMA_20": Feature(20, lambda f: ta.sma(f[VOLUME], 20)),
        "1h_return": Feature(2, lambda f: ta.simple_return(f[CLOSE])),
        SENTIMENT: _column(SENTIMENT),
        "DayOfWeek_sin": Feature(1, lambda f: np.sin(2 * np.pi * ta.day_of_week(f.timestamp) / 7)),
        "DayOfWeek_cos": Feature(1, lambda f: np.cos(2 * np.pi * ta.day_of_week(f.timestamp) / 7)),
    },
)


def names_only(features: Iterable[str]) -> FeatureSet:
    """Return the features of a model that was trained on others than ours: their values come from the client."""
    return FeatureSet("", {name: Feature(0, _not_computed) for name in features}, exogenous=(), computed=False)


def _not_computed(_: Frame) -> FloatArray:
    raise FeaturesNeeded("these features are not computed here; send them as `features`")


FEATURE_SETS: Mapping[str, FeatureSet] = {TECH23.name: TECH23}
