"""A bundle → the same model in another runtime or precision, if it passes the action-flip gate."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import cycle
from pathlib import Path

import numpy as np

from serve_app.batches import WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import GateFailed
from serve_app.model import Bundle, write_bundle
from serve_app.model.bundle import tag_of
from serve_app.model.exporters import export_network
from serve_app.model.gate import ALLOWED, Comparison, GateReport
from serve_app.model.predictors import Predictor, build_predictor, reference
from serve_app.parity import golden_requests
from serve_app.pipeline import Pipeline, local_stages, preprocess_of
from serve_app.training.golden import DRAWN, decision_points, drawn_windows
from serve_app.training.imported import usable_bars
from serve_app.types import Bars, FloatArray, Precision, Runtime, SignalRequest

BATCHES = (64, 1, 7, 32)
"""Windows that the export is asked about at once, in turn: it must say the same in every batch."""
N_REPLAY = 2000
"""Windows of the replay set, over all symbols."""


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What to make, and when."""

    version: str
    runtime: Runtime
    precision: Precision
    exported_at: datetime


@dataclass(frozen=True, slots=True)
class Replay:
    """Decision points besides the golden cases, and where they came from."""

    requests: Sequence[SignalRequest]
    source: str


def replay_of(bundle: Bundle, bars_by_symbol: Mapping[str, Bars], source: str) -> Replay:
    """Spread N_REPLAY decision points over all symbols; drawn windows for a bundle that takes no bars."""
    if not bundle.config.bars_needed:
        return Replay(drawn_windows(bundle, N_REPLAY), DRAWN)
    bars = usable_bars(bundle, bars_by_symbol, source)
    return Replay(decision_points(bundle, bars, N_REPLAY // len(bars)), source)


def export_bundle(source: Bundle, settings: ExportSettings, replay: Replay, folder: Path) -> Bundle:
    """Write the bundle `source` as a new one that is served in another runtime or precision.

    Raises:
        GateFailed: the export decides otherwise; nothing is written.
        BundleError, ConfigError: there is nothing to export, or not in this precision.
        FileExistsError: the folder is there already.
    """
    runtime, precision = settings.runtime, settings.precision
    programs = dict(source.programs)
    if runtime is not Runtime.TORCH:
        programs[runtime] = export_network(source, runtime, precision)
    changes = {"model_version": settings.version, "runtime": runtime, "precision": precision}
    unproven = replace(source, path=folder, config=source.config.model_copy(update=changes), programs=programs)
    report = run_gate(source, build_predictor(unproven, runtime, precision, threads=1), settings, replay)
    origin = {"version": source.version, "digest": source.digest, "exported_at": settings.exported_at.isoformat()}
    named = {"model_version": settings.version, "git_tag": tag_of(settings.version)}
    metadata = {**source.metadata, **named, "exported_from": origin}
    return write_bundle(replace(unproven, metadata=metadata, gates=(*_still_true(source, settings), report)))


def _still_true(source: Bundle, settings: ExportSettings) -> list[GateReport]:
    """The reports of what the export leaves as it is: not those of a program that it replaces."""
    others = [gate for gate in source.gates if gate.runtime is not settings.runtime]
    same = [gate for gate in source.gates if gate.runtime is settings.runtime is Runtime.TORCH]
    return others + [gate for gate in same if gate.precision is not settings.precision]


def run_gate(source: Bundle, export: Predictor, settings: ExportSettings, replay: Replay) -> GateReport:
    """Hold an export against the reference on the golden cases and the replay set. Raises GateFailed."""
    runtime, precision = reference(source)
    pipeline = Pipeline(source, local_stages(source, ModelConfig(runtime=runtime, precision=precision)))
    golden = golden_requests(source.golden, pipeline.feature_set, source.config.strategy.holding_unit)
    windows, expected = asyncio.run(_predict(pipeline, [*golden, *replay.requests]))
    got = np.concatenate([export.logits(batch.windows, batch.asset_ids) for batch in _batches(windows)])
    with np.errstate(over="ignore"):
        probabilities = 1 / (1 + np.exp(-got.astype(np.float64)))
    names = [f"golden case {i} of {request.symbol}" for i, request in enumerate(golden)] + [
        f"{request.symbol} at {_time(request, i)}" for i, request in enumerate(replay.requests)
    ]
    comparison = Comparison(names, expected, probabilities, source.config.strategy)
    allowed = ALLOWED[settings.precision]
    refusal = comparison.refusal(allowed)
    if refusal is not None:
        raise GateFailed(f"{settings.runtime} in {settings.precision} does not pass the gate: {refusal}")
    return GateReport(
        runtime=settings.runtime,
        precision=settings.precision,
        device=export.device,
        reference=f"{runtime} {precision} of {source.version}, {source.digest}",
        replay=replay.source,
        golden_cases=len(golden),
        windows=len(names),
        max_probability_error=float(comparison.errors.max()),
        probability_bound=allowed.probability,
        margin=allowed.probability,
        flips_within_margin=int(comparison.flips().sum()),
    )


async def _predict(pipeline: Pipeline, requests: Sequence[SignalRequest]) -> tuple[WindowBatch, FloatArray]:
    windows = await preprocess_of(pipeline.bundle).run(pipeline.stack([pipeline.row(request) for request in requests]))
    parts = [(await pipeline.stages.model(batch)).probabilities for batch in _batches(windows)]
    return windows, np.concatenate(parts)


def _batches(windows: WindowBatch) -> Iterator[WindowBatch]:
    start, sizes = 0, cycle(BATCHES)
    while start < len(windows):
        cut = slice(start, start := start + next(sizes))
        yield WindowBatch(windows.digest, windows.windows[cut], windows.asset_ids[cut])


def _time(request: SignalRequest, number: int) -> str:
    return f"{request.history.timestamp[-1]}Z" if isinstance(request.history, Bars) else f"drawn window {number}"
