"""Train, validation and test by time: the same cuts for all symbols, an embargo where a label reaches across one."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve_app.errors import ConfigError
from serve_app.types import TimeArray

BoolArray = NDArray[np.bool_]
TRAIN_SHARE = 0.70
VALIDATION_SHARE = 0.15


@dataclass(frozen=True, slots=True)
class Cuts:
    """The last instants, UTC, of the training and of the validation period. Raises ConfigError if out of order."""

    train_end: np.datetime64
    validation_end: np.datetime64

    def __post_init__(self) -> None:
        if not self.train_end < self.validation_end:
            raise ConfigError(f"train_end {self.train_end} must lie before validation_end {self.validation_end}")


@dataclass(frozen=True, slots=True)
class Split:
    """Which bars of a symbol are decided in which period: masks (N,), disjoint. Bars under embargo are in none."""

    train: BoolArray
    validation: BoolArray
    test: BoolArray


def default_cuts(timestamps: Iterable[TimeArray]) -> Cuts:
    """Cut the sorted distinct timestamps of all symbols at 70 % and 85 %. Raises ConfigError below ten of them."""
    distinct = np.unique(np.concatenate([np.empty(0, "datetime64[us]"), *timestamps]))
    if len(distinct) < 10:
        raise ConfigError(f"{len(distinct)} distinct timestamps are too few to split into train, validation and test")
    train, validation = int(TRAIN_SHARE * len(distinct)), int((TRAIN_SHARE + VALIDATION_SHARE) * len(distinct))
    return Cuts(distinct[train - 1], distinct[validation - 1])


def split_by_time(timestamps: TimeArray, cuts: Cuts, embargo: int) -> Split:
    """Split the bars of one symbol, timestamps (N,) ascending.

    `embargo` is the label's horizon in bars: a training sample's label ends at or before `train_end`, a validation
    sample's at or before `validation_end`, so no label reads a bar of the next period (López de Prado 2018, chapter 7).
    Features may look back across a cut; they are causal.
    """
    last_read = np.full(len(timestamps), np.datetime64("NaT", "us"))  # NaT compares false: labels beyond the data
    last_read[: max(len(timestamps) - embargo, 0)] = timestamps[embargo:]
    return Split(
        train=last_read <= cuts.train_end,
        validation=(timestamps > cuts.train_end) & (last_read <= cuts.validation_end),
        test=timestamps > cuts.validation_end,
    )
