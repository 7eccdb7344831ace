"""The rules: what is measured, against which limit, and what to do about it. All comparisons are strict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from serve_app.config import AlertName, AlertsConfig, Rule
from serve_app.monitor.drift import DriftWatch
from serve_app.monitor.outcomes import Judged, Loss
from serve_app.monitor.state import MonitorState, VariantWindow
from serve_app.types import FloatArray, VariantName

T = TypeVar("T")
EVEN = 0.5
"""A prediction above it, or equal to it, is one of label 1; trading uses the threshold of the bundle."""
RETRAINING = frozenset(
    {AlertName.ROLLING_ACCURACY, AlertName.PREDICTION_SHIFT, AlertName.LOSS_INCREASE, AlertName.FEATURE_DRIFT}
)
"""What a model that is trained again would mend."""


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement."""

    alert: AlertName
    subject: str | None
    """A variant, the version of a bundle, or None: the graph as a whole."""
    value: float | None
    """None: there is not enough to say."""
    limit: float
    breached: bool
    message: str
    model_version: str | None = None
    """Of the model that it is of; None: of none, or it is not known of which."""


def side(probabilities: FloatArray) -> NDArray[np.bool_]:
    """Return whether each prediction is one of label 1."""
    return probabilities >= EVEN


def accuracy(probabilities: FloatArray, labels: FloatArray, window: int) -> float | None:
    """Return the share of the latest `window` predictions on the right side of 0.5; None when there are fewer."""
    if len(labels) < window:
        return None
    return float((side(probabilities[-window:]) == (labels[-window:] == 1)).mean())


def latest(values: Sequence[T], n: int) -> list[T]:
    """Return the latest n; of a deque, which has no slices, too."""
    return list(islice(values, max(0, len(values) - n), None))


def shift(probabilities: Sequence[float], window: int) -> float | None:
    """Return how far the mean of the latest `window` is from that of the `window` before.

    None when there are not twice as many: a first window alone, or one against a handful, would be an accident.
    """
    if len(probabilities) < 2 * window:
        return None
    both = np.array(latest(probabilities, 2 * window))
    return float(abs(both[window:].mean() - both[:window].mean()))


def p95(latencies_ms: Sequence[float], window: int) -> float | None:
    """Return the 95th percentile of the latest `window`; None when there are fewer."""
    return float(np.percentile(latest(latencies_ms, window), 95)) if len(latencies_ms) >= window else None


def median(values: Sequence[float], window: int) -> float | None:
    """Return the median of the latest `window`; None when there are fewer."""
    return float(np.median(latest(values, window))) if len(values) >= window else None


def share(happened: Sequence[bool], window: int) -> float | None:
    """Return how many of the latest `window` were so; None when there are fewer."""
    return fmean(latest(happened, window)) if len(happened) >= window else None


def readings(state: MonitorState, judged: Mapping[VariantName, Judged], config: AlertsConfig) -> Iterator[Reading]:
    """Measure everything that has a rule."""
    rules = config.rules()
    yield from _of_graph(state, rules)
    for name, window in state.variants.items():
        if window.version is not None:
            yield from _by(window.version, _of_window(name, window, rules))
    for name, known in judged.items():
        if state.is_still(name, known.model_version):  # outcomes come late, maybe of one that has left
            yield from _by(known.model_version, _of_outcomes(name, known, config))
    if config.feature_drift:
        for digest, watch in state.drift.items():
            yield _drift(state.learnt[digest].version, watch)


def _of_graph(state: MonitorState, rules: Mapping[AlertName, Rule]) -> Iterator[Reading]:
    if rule := rules.get(AlertName.MEMORY):
        node, used = max(state.memory.items(), key=lambda one: one[1], default=("", None))
        text = f"{{:.0%}} of the memory of {node}, or of a GPU in it, is in use"
        yield _above(AlertName.MEMORY, None, used, rule, text)
    if rule := rules.get(AlertName.ERROR_RATE):
        failed = share(state.failed, rule.window)
        yield _above(AlertName.ERROR_RATE, None, failed, rule, "{:.1%} of requests fail")


def _by(version: str | None, measured: Iterable[Reading]) -> Iterator[Reading]:
    return (replace(one, model_version=version) for one in measured)


def _of_outcomes(name: VariantName, known: Judged, config: AlertsConfig) -> Iterator[Reading]:
    if rule := config.rolling_accuracy:
        yield _accuracy(name, accuracy(known.probabilities, known.labels, rule.window), rule)
    if config.loss_increase and known.loss:
        yield _loss(name, known.loss)


def _of_window(name: VariantName, window: VariantWindow, rules: Mapping[AlertName, Rule]) -> Iterator[Reading]:
    if rule := rules.get(AlertName.PREDICTION_SHIFT):
        moved = shift(window.probabilities, rule.window)
        yield _above(AlertName.PREDICTION_SHIFT, name, moved, rule, "the mean prediction has moved by {:.3f}")
    if rule := rules.get(AlertName.INFERENCE_LATENCY):
        took = p95(window.latencies_ms, rule.window)
        yield _above(AlertName.INFERENCE_LATENCY, name, took, rule, "p95 of the latency is {:.1f} ms")
    if rule := rules.get(AlertName.BAR_AGE):
        age = median(window.ages_s, rule.window)
        yield _above(AlertName.BAR_AGE, name, age, rule, "half of the decisions rest on bars older than {:.0f} s")
    if rule := rules.get(AlertName.ABSTENTION_RATE):
        silent = share(window.abstained, rule.window)
        yield _above(AlertName.ABSTENTION_RATE, name, silent, rule, "{:.1%} of decisions are abstentions")


def _accuracy(name: VariantName, right: float | None, rule: Rule) -> Reading:
    breached = right is not None and right < rule.limit
    said = _said("{:.1%} of predictions were right", right, rule)
    return Reading(AlertName.ROLLING_ACCURACY, name, right, rule.limit, breached, said)


def _loss(name: VariantName, found: Loss) -> Reading:
    """The limit is the loss before the change."""
    if found.before is None:
        said = f"the mean Brier loss is {found.now:.4f}, as it was"
        return Reading(AlertName.LOSS_INCREASE, name, found.now, found.now, False, said)
    said = f"the mean Brier loss was {found.before:.4f} and is {found.now:.4f}"
    return Reading(AlertName.LOSS_INCREASE, name, found.now, found.before, found.has_grown, said)


def _above(alert: AlertName, subject: str | None, value: float | None, rule: Rule, words: str) -> Reading:
    breached = value is not None and value > rule.limit
    return Reading(alert, subject, value, rule.limit, breached, _said(words, value, rule))


def _said(words: str, value: float | None, rule: Rule) -> str:
    said = "not enough is known" if value is None else words.format(value)
    over = f" over the latest {rule.window:,}" if rule.window > 1 else ""
    return f"{said}{over}; the limit is {rule.limit:g}"


def _drift(version: str, watch: DriftWatch) -> Reading:
    drifted = watch.drifted()
    by_way: dict[str, list[str]] = {}
    for name, ways in drifted.items():
        by_way.setdefault(" and ".join(ways), []).append(name)
    named = "; ".join(f"{way} of {', '.join(names)}" for way, names in by_way.items())
    message = f"unlike training: {named}" if drifted else "every feature is as in training"
    known = None if watch.latest is None else float(len(drifted))
    return Reading(AlertName.FEATURE_DRIFT, version, known, 0.0, bool(drifted), message, version)
