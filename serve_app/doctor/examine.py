"""The examination, from the files through scaler, golden cases and data to the speed of the stages."""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from serve_app.audit.histories import histories_of, request_at
from serve_app.batches import WindowBatch
from serve_app.config import ModelConfig, VariantConfig
from serve_app.doctor.diagnosis import FAR, Check, Diagnosis, FeatureSummary, Verdict
from serve_app.doctor.machine import memory, versions
from serve_app.errors import BundleCorrupt, ServeAppError, UnusableRequest
from serve_app.model import Bundle, load_bundle
from serve_app.model.bundle import NETWORKS
from serve_app.parity import check_golden, golden_requests
from serve_app.pipeline import ByDigest, Pipeline, model_of, preprocess_of, rules_of, stages_of
from serve_app.preprocess import usual_interval_s
from serve_app.types import Bars, FloatArray, Row

if TYPE_CHECKING:
    from serve_app.model.stage import Model

NEAR_ZERO = 1e-6
"""A scale below this share of its feature's mean, or of 1, makes rounding errors look like signals."""
MAX_FAR_SHARE = 0.05
DATA_WINDOWS = 64
"""Latest windows per symbol of the data."""
CONSTANT, NEARLY_CONSTANT = 1e-6, 1e-3
"""Deviations of the probability over different windows."""
BATCHES = (1, 64)
REPEATS = 15
SLOW_SHARE = 0.25
"""Of the deadline, that one batch may take."""
FIRST = "mend what the lines above name first"
DAMAGE = (ServeAppError, ValueError, RuntimeError, IndexError, KeyError, TypeError)
"""What the stages raise when scaler, mapping, weights and golden cases do not fit each other."""


@dataclass(frozen=True, slots=True)
class _Sample:
    """Windows to look at: rows, their symbols, unscaled features (B, L, F), and what the stages made."""

    origin: str
    rows: Sequence[Row]
    raw: FloatArray
    windows: WindowBatch
    probabilities: FloatArray


@dataclass(frozen=True, slots=True)
class _Patient:
    pipeline: Pipeline
    model: "Model"
    bars: Mapping[str, Bars] | None

    @property
    def bundle(self) -> Bundle:
        return self.pipeline.bundle


BuildModel = Callable[[Bundle, ModelConfig], "Model"]


def examine(path: str | Path, bars: Mapping[str, Bars] | None = None, build_model: BuildModel = model_of) -> Diagnosis:
    """Examine a bundle, and the latest windows of `bars` if given. Raises BundleNotFound."""
    try:
        bundle = load_bundle(path)
    except BundleCorrupt as error:
        broken = Check("files", Verdict.FAIL, str(error), "restore the bundle from where it was built")
        return Diagnosis(str(path), None, (broken, memory(None), versions()))
    networks = ", ".join(NETWORKS[runtime] for runtime in bundle.runtimes)
    verified = f"{networks} and all other files are as the manifest says, {bundle.digest[:19]}…"
    checks = [Check("files", Verdict.OK, verified), _scaler(bundle)]
    try:
        patient = _admit(bundle, bars, build_model)
    except DAMAGE as error:
        checks.append(Check("model", Verdict.FAIL, _text(error), "config.json and weights must be of one training run"))
        return Diagnosis(str(path), bundle.digest, (*checks, memory(bundle), versions()))
    with np.errstate(all="ignore"):  # what is not finite is found, and said, by the checks
        found, features = asyncio.run(_stages(patient))
    return Diagnosis(str(path), bundle.digest, (*checks, *found, memory(bundle), versions()), features)


def _admit(bundle: Bundle, bars: Mapping[str, Bars] | None, build_model: BuildModel) -> _Patient:
    model = build_model(bundle, ModelConfig())
    pipeline = Pipeline(bundle, stages_of(bundle, ByDigest({bundle.digest: model}).run))
    return _Patient(pipeline, model, bars)


def _text(error: Exception) -> str:
    lines = str(error).splitlines()
    return " ".join(line.strip() for line in lines[:3]) or type(error).__name__


def _scaler(bundle: Bundle) -> Check:
    names, mean, scale = bundle.config.feature_list, np.array(bundle.scaler.mean), np.array(bundle.scaler.scale)
    refit = "fit the scaler anew on the training period; a feature without variation needs scale 1, or no place at all"
    if not len(mean) == len(scale) == len(names):
        finding = f"{len(mean)} means and {len(scale)} scales for {len(names)} features"
        return Check("scaler", Verdict.FAIL, finding, "take the scaler that belongs to this feature list")
    bad = ~(np.isfinite(mean) & np.isfinite(scale) & (scale > 0))
    if bad.any():
        wrong = ", ".join(f"{names[i]} (mean {mean[i]:g}, scale {scale[i]:g})" for i in np.flatnonzero(bad))
        return Check("scaler", Verdict.FAIL, f"not finite, or scale not above 0: {wrong}", refit)
    tiny = scale < NEAR_ZERO * np.maximum(np.abs(mean), 1)
    if tiny.any():
        named = ", ".join(f"{names[i]} ({scale[i]:g})" for i in np.flatnonzero(tiny))
        return Check("scaler", Verdict.WARN, f"scale near zero: {named}", refit)
    finding = f"{len(names)} features, all finite, scales from {scale.min():.3g} to {scale.max():.3g}"
    return Check("scaler", Verdict.OK, finding)


async def _stages(patient: _Patient) -> tuple[list[Check], tuple[FeatureSummary, ...]]:
    """All checks that need the stages."""
    checks = [await _golden(patient)]
    golden = await _sample_of(patient, "golden cases", _golden_rows)
    data = await _sample_of(patient, "data", _data_rows) if patient.bars is not None else None
    if patient.bars is not None:
        checks.append(_interval(patient.bundle, patient.bars))
    samples = [sample for sample in (golden, data) if isinstance(sample, _Sample)]
    features: tuple[FeatureSummary, ...] = ()
    seen = golden if data is None else data
    if isinstance(seen, _Sample):
        features = _summaries(patient.bundle, seen)
        checks.append(_features(seen.origin, len(seen.rows), features))
    else:
        checks.append(seen)
    checks.append(_output(patient.bundle, samples))
    if samples:
        checks.append(_guarded("eval mode", lambda: _eval_mode(patient, samples[-1])))
        checks.append(await _latency(patient, samples[-1]))
    return checks, features


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except DAMAGE as error:
        return Check(name, Verdict.FAIL, _text(error), FIRST)


async def _golden(patient: _Patient) -> Check:
    try:
        await check_golden(patient.pipeline)
    except DAMAGE as error:
        advice = "weights, scaler or feature code are not those that the bundle was built with; build it anew"
        return Check("golden", Verdict.FAIL, _text(error), advice)
    return Check("golden", Verdict.OK, f"{len(patient.bundle.golden)} cases reproduced through all stages")


def _interval(bundle: Bundle, bars: Mapping[str, Bars]) -> Check:
    """Hold the bar interval of the data against the bundle's: features of other bars look much the same."""
    known = {symbol: history for symbol, history in bars.items() if symbol in bundle.symbol_to_id and len(history) > 1}
    expected = bundle.config.bar_interval_s
    seen = usual_interval_s(known) if known else expected
    if seen != expected:
        finding = f"bars of the data are {seen:g} s apart, the bundle is for bars of {expected:g} s"
        return Check(
            "interval", Verdict.WARN, finding, "give it bars of its own interval; nothing else tells them apart"
        )
    return Check("interval", Verdict.OK, f"bars are {expected:g} s apart, as in training")


def _golden_rows(patient: _Patient) -> list[Row]:
    unit = patient.bundle.config.strategy.holding_unit
    requests = golden_requests(patient.bundle.golden, patient.pipeline.feature_set, unit)
    return [patient.pipeline.row(request) for request in requests]


def _data_rows(patient: _Patient) -> list[Row]:
    needed = patient.bundle.config.bars_needed
    histories = histories_of(patient.bundle, rules_of(patient.bundle), patient.bars or {})
    return [
        patient.pipeline.row(request_at(symbol, bars, end, needed))
        for symbol, bars in histories.bars.items()
        for end in range(max(needed, len(bars) - DATA_WINDOWS + 1), len(bars) + 1)
    ]


async def _sample_of(patient: _Patient, origin: str, rows_of: Callable[[_Patient], list[Row]]) -> _Sample | Check:
    pipeline = patient.pipeline
    try:
        rows = rows_of(patient)
        batch = pipeline.stack(rows)
        windows = await pipeline.stages.preprocess(batch)
        predictions = await pipeline.stages.model(windows)
    except UnusableRequest as error:
        return Check("features", Verdict.FAIL, f"serving refuses the {origin}: {error}", "mend the data")
    except DAMAGE as error:
        return Check("features", Verdict.FAIL, _text(error), FIRST)
    raw = preprocess_of(patient.bundle).features(batch)
    return _Sample(origin, rows, raw, windows, predictions.probabilities)


def _summaries(bundle: Bundle, sample: _Sample) -> tuple[FeatureSummary, ...]:
    scaled = sample.windows.windows.astype(np.float64)
    far = ~(np.abs(scaled) <= FAR)
    columns = [
        *(f(sample.raw, axis=(0, 1)) for f in (np.mean, np.std, np.min, np.max)),
        bundle.scaler.mean,
        bundle.scaler.scale,
        *(f(scaled, axis=(0, 1)) for f in (np.mean, np.std)),
        far.mean(axis=(0, 1)),
    ]
    names = bundle.config.feature_list
    return tuple(FeatureSummary(name, *map(float, values)) for name, *values in zip(names, *columns, strict=True))


def _features(origin: str, n_windows: int, features: Sequence[FeatureSummary]) -> Check:
    windows = f"{n_windows} windows of the {origin}"
    broken = [summary.feature for summary in features if not np.isfinite(summary.scaled_mean)]
    if broken:
        finding = f"not a finite number in {windows} once scaled: {', '.join(broken)}"
        return Check("features", Verdict.FAIL, finding, "mend the scaler, or what fills gaps in the data")
    far = sorted((s for s in features if s.far_share > MAX_FAR_SHARE), key=lambda s: -s.far_share)
    if far:
        named = ", ".join(f"{s.feature} ({s.far_share:.0%})" for s in far)
        finding = f"in {windows}, more than {FAR:g} training deviations from the training mean: {named}"
        advice = "check units, split adjustment and bar interval against the training data; else retrain"
        return Check("features", Verdict.WARN, finding, advice)
    extreme = max(features, key=lambda s: abs(s.scaled_mean))
    farthest = f"{extreme.feature} ({extreme.scaled_mean:+.1f} deviations)"
    finding = f"{windows} lie where training lay; farthest on average: {farthest}"
    return Check("features", Verdict.OK, finding)


def _output(bundle: Bundle, samples: Sequence[_Sample]) -> Check:
    probabilities = np.concatenate([np.empty(0), *(sample.probabilities for sample in samples)])
    windows = f"{len(probabilities)} windows"
    if len(probabilities) < 2 or not np.isfinite(probabilities).all():
        n_bad = int((~np.isfinite(probabilities)).sum())
        finding = f"{n_bad} of {windows} give no finite probability" if len(probabilities) else "no window to ask about"
        return Check("output", Verdict.FAIL, finding, FIRST)
    low, high, std = probabilities.min(), probabilities.max(), probabilities.std()
    finding = f"probabilities of {windows} from {low:.4f} to {high:.4f}, deviation {std:.2g}"
    advice = "look at the scaled features (--features) for one that drowns the others, and at the training losses"
    if std < NEARLY_CONSTANT:
        verdict = Verdict.FAIL if std < CONSTANT else Verdict.WARN
        return Check("output", verdict, f"{bundle.version} looks like a constant model: {finding}", advice)
    return Check("output", Verdict.OK, finding)


def _eval_mode(patient: _Patient, sample: _Sample) -> Check:
    first, second = (patient.model.forward(sample.windows) for _ in range(2))
    same = np.array_equal(first, second, equal_nan=True)
    if patient.model.in_eval_mode and same:
        return Check("eval mode", Verdict.OK, "dropout is off; the same input twice gives the same output to the bit")
    mode = "in eval mode" if patient.model.in_eval_mode else "in training mode, dropout is active"
    finding = f"the network is {mode}; the same input twice gives {'the same output' if same else 'different outputs'}"
    return Check("eval mode", Verdict.FAIL, finding, "call eval() on the network before it serves")


async def _latency(patient: _Patient, sample: _Sample) -> Check:
    if not np.isfinite(sample.probabilities).all():
        return Check("latency", Verdict.FAIL, "not measured: the stages would abstain", FIRST)
    deadline = VariantConfig(bundle="").deadline_ms
    parts, worst = [], 0.0
    for size in BATCHES:
        batch = [sample.rows[i % len(sample.rows)] for i in range(size)]
        runs = [(await patient.pipeline.run(batch))[0].timings_ms for _ in range(1 + REPEATS)][1:]
        if not all(runs):
            return Check("latency", Verdict.FAIL, "the stages abstain", FIRST)
        medians = {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
        worst = max(worst, sum(medians.values()))
        parts.append(f"batch of {size}: " + ", ".join(f"{stage} {ms:.2f} ms" for stage, ms in medians.items()))
    slow = worst > SLOW_SHARE * deadline
    advice = "more model threads, a smaller max_batch_size, or a smaller network" if slow else ""
    return Check("latency", Verdict.WARN if slow else Verdict.OK, "; ".join(parts), advice)
