"""The way of a batch through the stages, wherever they run. In one process it is the twin of `deployments.graph`.

A stage is an async callable on batches: the `run` of an object here, or a handle's `remote` there.
"""

import logging
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

import numpy as np

from serve_app.batches import ActionBatch, PositionBatch, PredictionBatch, RowBatch, WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import BundleError, DigestMismatch, FeaturesNeeded, StageFailed, StageUnavailable
from serve_app.model import Bundle
from serve_app.preprocess import (
    FEATURE_SETS,
    FeatureSet,
    HistoryRules,
    Preprocess,
    Scaler,
    check_history,
    names_only,
    recent_rows,
)
from serve_app.strategy import Strategy
from serve_app.types import (
    Action,
    Bars,
    Float32Array,
    Outcome,
    Position,
    PositionStatus,
    Reason,
    Row,
    SignalRequest,
    Thresholds,
)

if TYPE_CHECKING:
    from serve_app.model.stage import Model

log = logging.getLogger(__name__)


class Batch(Protocol):
    """What travels between stages."""

    @property
    def digest(self) -> str:
        """The bundle it is meant for."""

    def __len__(self) -> int: ...


BatchT_contra = TypeVar("BatchT_contra", bound=Batch, contravariant=True)
BatchT_co = TypeVar("BatchT_co", bound=Batch, covariant=True)


class Stage(Protocol[BatchT_contra, BatchT_co]):
    """Anything that turns a batch into a batch of the same length and order."""

    async def run(self, batch: BatchT_contra) -> BatchT_co:
        """Turn a batch into a batch."""


class ByDigest(Generic[BatchT_contra, BatchT_co]):
    """A stage that holds one object per bundle and refuses a batch for a bundle that it does not hold."""

    def __init__(self, stages: Mapping[str, Stage[BatchT_contra, BatchT_co]]) -> None:
        self._stages = dict(stages)

    async def run(self, batch: BatchT_contra) -> BatchT_co:
        """Hand the batch to the object of its bundle. Raises DigestMismatch."""
        stage = self._stages.get(batch.digest)
        if stage is None:
            raise DigestMismatch(f"this stage holds {sorted(self._stages)}, the batch is for {batch.digest}")
        return await stage.run(batch)


@dataclass(frozen=True, slots=True)
class Stages:
    """The three stages that the router calls in turn."""

    preprocess: Callable[[RowBatch], Awaitable[WindowBatch]]
    model: Callable[[WindowBatch], Awaitable[PredictionBatch]]
    strategy: Callable[[PositionBatch], Awaitable[ActionBatch]]


def feature_set_of(bundle: Bundle) -> FeatureSet | None:
    """Return what a bundle's model sees; None when it is a set of features that this release does not have."""
    config = bundle.config
    return names_only(config.feature_list) if config.feature_set is None else FEATURE_SETS.get(config.feature_set)


def rules_of(bundle: Bundle) -> HistoryRules:
    """Return what a bundle asks of a history."""
    config = bundle.config
    feature_set = feature_set_of(bundle)
    if feature_set is None or feature_set.features != config.feature_list:
        raise BundleError(f"{bundle.path}: its features are not those of {config.feature_set} in this release")
    without = set(feature_set.exogenous) - set(config.exogenous)
    if without:
        raise BundleError(f"{bundle.path} has no default for {', '.join(sorted(without))}")
    rules = HistoryRules(feature_set, config.lookback_window, config.exogenous)
    if rules.bars_needed != config.bars_needed:
        raise BundleError(f"{bundle.path} declares {config.bars_needed} bars, its features read {rules.bars_needed}")
    return rules


def preprocess_of(bundle: Bundle) -> Preprocess:
    """Return the preprocess stage of a bundle."""
    rules = rules_of(bundle)
    scaler = Scaler(np.array(bundle.scaler.mean), np.array(bundle.scaler.scale))
    return Preprocess(rules.feature_set, rules.lookback_window, scaler)


def strategy_of(bundle: Bundle, thresholds: Thresholds | None = None) -> Strategy:
    """Return the strategy stage of a bundle, with the thresholds of a release if it has any."""
    return Strategy(thresholds or bundle.config.strategy, bundle.config.bar_interval)


def model_of(bundle: Bundle, config: ModelConfig, out_of_memory: Callable[[], None] | None = None) -> "Model":
    """Return the model stage of a bundle, warmed up. `out_of_memory` is called whenever its device runs out."""
    from serve_app.model.stage import Model  # noqa: PLC0415  what it runs on is heavy; most processes need none

    model = Model(bundle, config, out_of_memory=out_of_memory)
    model.warm_up(bundle, config.warm_up_rows)
    return model


def stages_of(bundle: Bundle, model: Callable[[WindowBatch], Awaitable[PredictionBatch]]) -> Stages:
    """Return the stages of a bundle in this process, around a model that may be elsewhere."""
    preprocess = ByDigest({bundle.digest: preprocess_of(bundle)})
    strategy = ByDigest({bundle.digest: strategy_of(bundle)})
    return Stages(preprocess.run, model, strategy.run)


def local_stages(bundle: Bundle, config: ModelConfig) -> Stages:
    """Return all stages of a bundle in this process; see `model_of`."""
    return stages_of(bundle, ByDigest({bundle.digest: model_of(bundle, config)}).run)


def window_crc(window: Float32Array) -> int:
    """Return the CRC-32 of a scaled window (L, F): by it a replay sees whether the features are the same."""
    return zlib.crc32(np.ascontiguousarray(window).data)


def _seen(windows: WindowBatch) -> Float32Array:
    """Return the last row of each window (B, F); a copy, so that it does not keep the windows in memory."""
    last = windows.windows[:, -1].copy()
    if windows.missing is not None:
        last[windows.missing] = np.nan
    return last


class Pipeline:
    """One bundle's way through the stages: validate requests into rows, run batches of rows, isolate bad ones."""

    def __init__(
        self,
        bundle: Bundle,
        stages: Stages,
        clock: Callable[[], float] = time.perf_counter,
        thresholds: Thresholds | None = None,
    ) -> None:
        """`thresholds` stand in place of the bundle's."""
        self.bundle = bundle
        self.strategy = strategy_of(bundle, thresholds)
        self.stages = stages
        self._rules = rules_of(bundle)
        self.thresholds = thresholds
        self._clock = clock

    @property
    def feature_set(self) -> FeatureSet:
        """The features that the bundle's model sees."""
        return self._rules.feature_set

    def row(self, request: SignalRequest) -> Row:
        """Validate a request into a row that may join a batch. Raises a subclass of UnusableRequest."""
        asset_id = self.bundle.asset_id(request.symbol)
        is_long, held = request.position.status is PositionStatus.LONG, self.strategy.held(request.position)
        if not isinstance(request.history, Bars):
            features = recent_rows(request.history, self._rules)
            return Row(asset_id, features=features, is_long=is_long, held=held)
        self._refuse_bars_unless_computed()
        bars = check_history(request.history, self._rules)
        stacked = self._rules.feature_set.stack(bars, self._rules.exogenous)
        return Row(asset_id, bars=stacked, timestamps=bars.timestamp, is_long=is_long, held=held)

    def shortened(self, request: SignalRequest) -> SignalRequest:
        """Return a request whose whole history was validated, with no more of it in memory than `row` reads."""
        history = request.history
        rows = self._rules.bars_needed if isinstance(history, Bars) else self._rules.lookback_window
        kept = history.detached(rows)
        return request if kept is history else replace(request, history=kept)

    def _refuse_bars_unless_computed(self) -> None:
        if self.feature_set.computed:
            return
        names = self.feature_set.features
        raise FeaturesNeeded(
            f"model {self.bundle.version} sees features that are not computed here; send `features` with the columns"
            f" {', '.join(names)} in place of bars",
            features=list(names),
        )

    def stack(self, rows: Sequence[Row]) -> RowBatch:
        """Put rows together into the batch that preprocess takes."""
        feature_set, window = self._rules.feature_set, self._rules.lookback_window
        bars = [row.bars for row in rows if row.bars is not None]
        times = [row.timestamps for row in rows if row.timestamps is not None]
        features = [row.features for row in rows if row.features is not None]
        n = self._rules.bars_needed
        return RowBatch(
            digest=self.bundle.digest,
            asset_ids=np.array([row.asset_id for row in rows], dtype=np.int64),
            has_bars=np.array([row.bars is not None for row in rows], dtype=bool),
            bars=np.stack(bars) if bars else np.empty((0, n, len(feature_set.columns))),
            timestamps=np.stack(times) if times else np.empty((0, n), dtype="datetime64[us]"),
            features=np.stack(features) if features else np.empty((0, window, len(feature_set.features))),
        )

    def abstain(self, row: Row, reason: Reason) -> Outcome:
        """Return the outcome that needs no model."""
        return Outcome(self.strategy.action_without_model(row.is_long, row.held), reason=reason)

    async def run(self, rows: Sequence[Row]) -> list[Outcome]:
        """Take rows through all stages as one batch; same length, same order.

        Never raises because of a row: a batch that fails is bisected until the rows that make it fail stand alone,
        and those abstain with `model_unavailable`.
        """
        if not rows:
            return []
        try:
            return await self._pass(rows)
        except (StageUnavailable, DigestMismatch) as error:
            log.error("%d rows abstain: %s", len(rows), error)  # noqa: TRY400  no trace: the message is all there is
            return [self.abstain(row, Reason.MODEL_UNAVAILABLE) for row in rows]
        except Exception:  # whatever a stage raised, fail closed
            if len(rows) == 1:
                log.exception("a row abstains: a stage failed on it")
                return [self.abstain(rows[0], Reason.MODEL_UNAVAILABLE)]
            log.warning("a batch of %d failed, trying its halves", len(rows))
        middle = len(rows) // 2
        return await self.run(rows[:middle]) + await self.run(rows[middle:])

    async def _pass(self, rows: Sequence[Row]) -> list[Outcome]:
        times = [self._clock()]
        windows = await self.stages.preprocess(self.stack(rows))
        times.append(self._clock())
        predictions = await self.stages.model(windows)
        times.append(self._clock())
        if not (np.isfinite(predictions.logits).all() and np.isfinite(predictions.probabilities).all()):
            raise StageFailed("the model gave a logit or a probability that is not finite")
        actions = await self.stages.strategy(self._positions(rows, predictions))
        times.append(self._clock())
        if not len(windows) == len(predictions) == len(actions) == len(rows):
            raise StageFailed("a stage returned a batch of another length")
        stages = ("preprocess", "model", "strategy")
        timings = {
            stage: 1e3 * (after - before) for stage, before, after in zip(stages, times, times[1:], strict=False)
        }
        return [
            Outcome(action, probability, None, len(rows), timings, window_crc(window), seen)
            for action, probability, window, seen in zip(
                actions.actions, predictions.probabilities.tolist(), windows.windows, _seen(windows), strict=True
            )
        ]

    def _positions(self, rows: Sequence[Row], predictions: PredictionBatch) -> PositionBatch:
        return PositionBatch(
            digest=self.bundle.digest,
            probabilities=predictions.probabilities,
            is_long=np.array([row.is_long for row in rows], dtype=bool),
            held=np.array([row.held for row in rows], dtype=np.float64),
            thresholds=self.thresholds,
        )

    def fallback_action(self, position: Position) -> Action:
        """Return the action of a position when there is no model to ask. Raises InvalidPosition."""
        return self.strategy.action_without_model(position.status is PositionStatus.LONG, self.strategy.held(position))
