"""Replay: a decision of the journal computed again, stage by stage, by the bundle and the thresholds that it names."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.batches import PositionBatch, PredictionBatch, WindowBatch
from serve_app.errors import UnknownDecision
from serve_app.journal import Record, unpack_row
from serve_app.model.gate import ALLOWED
from serve_app.pipeline import Pipeline, window_crc
from serve_app.router.releases import Ledger
from serve_app.types import Action, Row, Status, Thresholds, VariantName

Find = Callable[[str], Awaitable[Record]]
PipelineOf = Callable[[str, Thresholds | None], Awaitable[Pipeline]]
"""Returns the pipeline of a bundle, by digest, with the thresholds of a release. Raises BundleNotLoaded."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What was decided, what the same inputs give now, and the first stage that gave something else, if any."""

    decision_id: str
    first_difference: str | None
    """`preprocess`, `model` or `strategy`."""
    recorded: Mapping[str, Any]
    computed: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"agrees": self.first_difference is None, **asdict(self)}


class Replayer:
    """Finds a decision, the thresholds that were in force, and the bundle; computes it again."""

    def __init__(self, find: Find, ledger: Ledger, pipeline_of: PipelineOf) -> None:
        self._find = find
        self._ledger = ledger
        self._pipeline_of = pipeline_of

    async def __call__(self, decision_id: str) -> Replay:
        """Compute a decision again. Raises UnknownDecision, JournalUnavailable, BundleNotLoaded, StageUnavailable."""
        record = await self._find(decision_id)
        entries = await asyncio.to_thread(self._ledger.entries)
        release = next((entry.release for entry in entries if entry.epoch == record["epoch"]), None)
        if release is None:
            raise UnknownDecision(f"{decision_id} is of epoch {record['epoch']}, and the ledger has no such epoch")
        thresholds = release.thresholds.get(VariantName(record["variant"]))
        return await replayed(record, await self._pipeline_of(record["bundle_digest"], thresholds))


async def replayed(record: Record, pipeline: Pipeline) -> Replay:
    """Compute a decision again. Raises what a stage raises.

    The strategy is asked with the probability of the record, so that it alone is to blame for another action. What
    abstained had no probability to compare; what the model says now is shown.
    """
    row = unpack_row(record["inputs"])
    windows = await pipeline.stages.preprocess(pipeline.stack([row]))
    predictions = await pipeline.stages.model(windows)
    abstained = record["status"] == Status.ABSTAIN
    probability = float(predictions.probabilities[0]) if abstained else record["probability"]
    actions = await pipeline.stages.strategy(_position(pipeline, row, probability))
    return Replay(
        record["decision_id"],
        None if abstained else _first_difference(record, windows, predictions, actions.actions[0]),
        {name: record[name] for name in ("status", "reason", "probability", "action", "window_crc")},
        {
            "probability": float(predictions.probabilities[0]),
            "action": actions.actions[0],
            "window_crc": window_crc(windows.windows[0]),
        },
    )


def _position(pipeline: Pipeline, row: Row, probability: float) -> PositionBatch:
    return PositionBatch(
        digest=pipeline.bundle.digest,
        probabilities=np.array([probability]),
        is_long=np.array([row.is_long]),
        held=np.array([row.held]),
        thresholds=pipeline.thresholds,
    )


def _first_difference(record: Record, windows: WindowBatch, predictions: PredictionBatch, action: Action) -> str | None:
    """Return the first stage that differs by more than another batch size may change."""
    allowed = ALLOWED[predictions.precision].probability
    if abs(float(predictions.probabilities[0]) - record["probability"]) > allowed:
        return "model" if window_crc(windows.windows[0]) == record["window_crc"] else "preprocess"
    return None if action == record["action"] else "strategy"
