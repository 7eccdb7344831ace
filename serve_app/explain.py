"""One decision, step by step: bars → features → probability against threshold → action."""

from dataclasses import dataclass

import numpy as np

from serve_app.batches import PositionBatch
from serve_app.model import Bundle
from serve_app.pipeline import Pipeline, rules_of
from serve_app.types import Action, Bars, Float32Array, FloatArray, HoldingUnit, Position, PositionStatus, SignalRequest

N_BARS = 3
"""Latest bars that are shown."""


@dataclass(frozen=True, slots=True)
class Steps:
    """What each stage made of one request: `features` (F,) of the last row, unscaled and `scaled`."""

    request: SignalRequest
    features: FloatArray
    scaled: Float32Array
    logit: float
    probability: float
    action: Action


def request_of(bundle: Bundle, symbol: str, bars: Bars, status: str, held: float | None) -> SignalRequest:
    """Return the request for the latest bar of a symbol; `held` is in the bundle's own holding unit.

    Columns of a data file that the bundle does not know are left out.
    """
    in_bars = bundle.config.strategy.holding_unit is HoldingUnit.BARS
    position = Position(PositionStatus(status), None if in_bars else held, held if in_bars else None)
    known = rules_of(bundle).feature_set.columns
    columns = {name: values for name, values in bars.columns.items() if name in known}
    return SignalRequest(symbol, Bars(bars.timestamp, columns), position)


async def decide(pipeline: Pipeline, request: SignalRequest) -> Steps:
    """Take one request with bars through the stages and keep what each returned. Raises UnusableRequest."""
    row = pipeline.row(request)
    batch = pipeline.stack([row])
    windows = await pipeline.stages.preprocess(batch)
    predictions = await pipeline.stages.model(windows)
    positions = PositionBatch(batch.digest, predictions.probabilities, np.array([row.is_long]), np.array([row.held]))
    actions = await pipeline.stages.strategy(positions)
    return Steps(
        request=request,
        features=pipeline.feature_set.compute(batch.bars, batch.timestamps, rows=1)[0, -1],
        scaled=windows.windows[0, -1],
        logit=float(predictions.logits[0]),
        probability=float(predictions.probabilities[0]),
        action=actions.actions[0],
    )


def _bars(bars: Bars) -> list[str]:
    names = list(bars.columns)
    lines = ["  " + "timestamp".ljust(20) + "".join(name.rjust(14) for name in names)]
    for i in range(max(0, len(bars) - N_BARS), len(bars)):
        time = np.datetime_as_string(bars.timestamp[i], unit="s") + "Z"
        lines.append("  " + time + "".join(f"{bars.columns[name][i]:14.4f}" for name in names))
    return lines


def _rule(pipeline: Pipeline, steps: Steps, held: float) -> str:
    """The rule that decided, with its numbers."""
    rules, is_long = pipeline.bundle.config.strategy, steps.request.position.status is PositionStatus.LONG
    if pipeline.strategy.exit_on_time(is_long, held):
        return "held for the longest allowed time"
    name, threshold = ("exit", rules.exit_threshold) if is_long else ("signal", rules.signal_threshold)
    if threshold is None:
        return "no exit threshold is set and the time is not over"
    sign = "≥" if steps.probability >= threshold else "<"
    return f"{steps.probability:.6f} {sign} {name} threshold {threshold:.6f}"


def explanation(pipeline: Pipeline, steps: Steps) -> str:
    """Return the steps as text."""
    bundle, config, position = pipeline.bundle, pipeline.bundle.config, steps.request.position
    assert isinstance(steps.request.history, Bars)  # noqa: S101  `decide` computed features from them
    bars = steps.request.history
    rules = config.strategy
    held = pipeline.strategy.held(position)
    features = [
        f"  {name:<30}{value:>18.6f}{scaled:>+12.4f}"
        for name, value, scaled in zip(config.feature_list, steps.features, steps.scaled, strict=True)
    ]
    held_for = f"{position.status}, held {held:g} of at most {rules.max_holding_period:g} {rules.holding_unit}"
    return "\n".join(
        [
            f"{steps.request.symbol} with {bundle.version} ({config.architecture}, {bundle.digest[:19]}…)",
            f"bars: {len(bars)} given, the last {config.bars_needed} used, the latest {min(N_BARS, len(bars))}:",
            *_bars(bars),
            f"features, the last of {config.lookback_window} rows".ljust(32) + "value".rjust(18) + "scaled".rjust(12),
            *features,
            f"model: logit {steps.logit:+.6f}, probability {steps.probability:.6f}",
            f"strategy: {held_for}; {_rule(pipeline, steps, held)}, so {steps.action}",
        ]
    )
