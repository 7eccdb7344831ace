"""The words of the graph: Bar → FeatureWindow → Prediction → Decision, as frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass as pydantic_dataclass

FloatArray = NDArray[np.float64]
"""Prices, volumes, features before scaling."""
Float32Array = NDArray[np.float32]
"""Scaled features and logits."""
TimeArray = NDArray[np.datetime64]
"""`datetime64[us]`, UTC."""


class Action(StrEnum):
    """What the strategy recommends."""

    BUY = "BUY"
    SELL = "SELL"
    HOLD = "HOLD"


class PositionStatus(StrEnum):
    """What the client holds."""

    FLAT = "FLAT"
    LONG = "LONG"


class VariantName(StrEnum):
    """Which model answers."""

    PRODUCTION = "production"
    CANDIDATE = "candidate"


def other_of(name: VariantName) -> VariantName:
    """Return the other variant."""
    return VariantName.CANDIDATE if name is VariantName.PRODUCTION else VariantName.PRODUCTION


class Status(StrEnum):
    """Whether a decision rests on a model."""

    OK = "ok"
    ABSTAIN = "abstain"


class Reason(StrEnum):
    """Why the graph abstained."""

    MODEL_UNAVAILABLE = "model_unavailable"
    DEADLINE = "deadline"


class Advice(StrEnum):
    """What the evidence says to do with the candidate."""

    PROMOTE = "promote"
    """Its predictions were better, and that is no accident."""
    REJECT = "reject"
    """They were worse."""
    KEEP = "keep"
    """If it is better at all, then by so little that it is not worth a change."""
    NOT_YET = "not_yet"


class HoldingUnit(StrEnum):
    """What a holding period counts."""

    HOURS = "hours"
    BARS = "bars"


class Runtime(StrEnum):
    """What computes a network."""

    TORCH = "torch"
    """The network built here, with the weights of `model.safetensors`."""
    TORCHSCRIPT = "torchscript"
    """The program `model.ts`."""
    ONNX = "onnx"
    """The graph `model.onnx`, in ONNX Runtime."""


class Precision(StrEnum):
    """In what numbers a network computes; windows and logits are FP32 whatever it is."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


@pydantic_dataclass(frozen=True, slots=True, config=ConfigDict(extra="forbid"))
class Thresholds:
    """When the strategy enters and leaves. Comparisons are inclusive."""

    signal_threshold: float = Field(default=0.7, ge=0, le=1)
    exit_threshold: float | None = Field(default=None, ge=0, le=1)
    max_holding_period: float = Field(default=8, gt=0)
    holding_unit: HoldingUnit = HoldingUnit.HOURS


@dataclass(frozen=True, slots=True)
class Position:
    """What the client holds, and since when: in hours, in bars, or both."""

    status: PositionStatus = PositionStatus.FLAT
    time_in_position_hours: float | None = None
    time_in_position_bars: float | None = None


FLAT = Position()


def _is_alone(values: NDArray[np.generic], n: int) -> bool:
    """Whether an array has at most n rows, and keeps no larger one in memory."""
    return len(values) <= n and values.base is None


@dataclass(frozen=True, slots=True)
class Bars:
    """The history of one symbol, oldest bar first: one array of shape (N,) a column, NaN where missing."""

    timestamp: TimeArray
    columns: Mapping[str, FloatArray]

    def __len__(self) -> int:
        return len(self.timestamp)

    def cut(self, where: slice) -> "Bars":
        """Return some of the bars."""
        return Bars(self.timestamp[where], {name: values[where] for name, values in self.columns.items()})

    def tail(self, n: int) -> "Bars":
        """Return the last `n` bars."""
        return self.cut(slice(-n, None))

    def until(self, end: int) -> "Bars":
        """Return the first `end` bars: what was known then."""
        return self.cut(slice(None, end))

    def detached(self, n: int) -> "Bars":
        """Return the last `n` bars, in memory that nothing else is in; itself when it has its times for itself.

        Times are parsed into an array of their own unless they, and so the other columns, come out of a table.
        """
        if _is_alone(self.timestamp, n):
            return self
        first = max(len(self) - n, 0)
        return Bars(self.timestamp[first:].copy(), {name: x[first:].copy() for name, x in self.columns.items()})


@dataclass(frozen=True, slots=True)
class FeatureRows:
    """Features that the client computed, unscaled: values of shape (N, F), NaN where missing."""

    columns: tuple[str, ...]
    values: FloatArray
    timestamp: datetime | None = None

    def __len__(self) -> int:
        return len(self.values)

    def detached(self, n: int) -> "FeatureRows":
        """Return the last `n` rows, in memory that nothing else is in."""
        if _is_alone(self.values, n):
            return self
        return FeatureRows(self.columns, self.values[max(len(self) - n, 0) :].copy(), self.timestamp)


@dataclass(frozen=True, slots=True)
class SignalRequest:
    """One question: what to do with `symbol` now, given its bars or its features."""

    symbol: str
    history: Bars | FeatureRows
    position: Position = FLAT


@dataclass(frozen=True, slots=True)
class Row:
    """A validated request, as arrays that stack: the last `bars_needed` bars, or the last L rows of features.

    Exactly one of `bars` (N, C) with `timestamps` (N,), and `features` (L, F) is given.
    `held` is the holding time in the bundle's own unit.
    """

    asset_id: int
    bars: FloatArray | None = None
    timestamps: TimeArray | None = None
    features: FloatArray | None = None
    is_long: bool = False
    held: float = 0.0


QUEUE = "queue"
"""The wait of a row before the stages, among its times."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one row. `probability` is None exactly when there is a reason for it."""

    action: Action
    probability: float | None = None
    reason: Reason | None = None
    batch_size: int = 0
    """Rows that shared the forward pass."""
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    window_crc: int | None = None
    """Of the scaled window that the model saw."""
    seen: Float32Array | None = field(default=None, compare=False, repr=False)
    """(F,): the last row of that window, NaN where the client had no value. For the monitor."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one request. `probability` is None exactly when the graph abstained."""

    decision_id: str
    symbol: str
    timestamp: datetime | None
    status: Status
    reason: Reason | None
    probability: float | None
    action: Action
    variant: VariantName
    model_version: str
    bundle_digest: str
    epoch: int
    batch_size: int = 0
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    window_crc: int | None = None
    seen: Float32Array | None = field(default=None, compare=False, repr=False)
    """See Outcome. It is neither answered nor kept."""

    def is_drawn(self, share: float) -> bool:
        """Whether it is in a share of all decisions: by its id, a UUID from a hash, so that it is so for everybody."""
        return int(self.decision_id[:8], 16) < share * 2**32


@dataclass(frozen=True, slots=True)
class Vitals:
    """How one variant does in one epoch."""

    answered: int = 0
    abstained: int = 0
    p95_ms: float | None = None
    """Of the time in the stages; None where nothing was answered."""


class Kind(NamedTuple):
    """What is counted of a decision, by the monitor and by the journal."""

    variant: VariantName
    model_version: str
    action: Action
    reason: Reason | None
    batch_size: int


@dataclass(frozen=True, slots=True)
class Matured:
    """Predictions of one bundle whose outcome is known, oldest outcome first: (n,) each."""

    digest: str
    model_version: str
    probabilities: FloatArray
    labels: FloatArray
    symbols: NDArray[np.str_]
    times: TimeArray
    """Of their bars; NaT where the client did not say."""
