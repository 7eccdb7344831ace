"""Serving computes what training did: features, scaler, sample data, special cases."""

import asyncio
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from serve_app.audit import audit_parity, histories_of
from serve_app.doctor import Verdict
from serve_app.pipeline import rules_of
from serve_app.preflight.subject import Found, NotExamined, Subject
from serve_app.preprocess.validation import LARGEST, MAX_MISSING_SHARE

PARITY_WINDOWS = 200
"""Per symbol, spread over its history."""
FEATURES_ONLY = "takes features only"


class _Period(BaseModel):
    start: datetime | None
    end: datetime | None
    windows: int


_PERIODS = TypeAdapter(dict[str, _Period])


def features(subject: Subject) -> Found:
    """The features are those of training, by name and in order."""
    config = subject.bundle.config
    rules_of(subject.bundle)
    n, first, last = len(config.feature_list), config.feature_list[0], config.feature_list[-1]
    if subject.features_only:
        finding = (
            f"{FEATURES_ONLY}: {n} columns from {first} to {last}, taken by name and put into the order of training"
        )
        return Found(Verdict.OK, finding)
    finding = f"{n} features, names and order are those of {config.feature_set}, from {first} to {last}"
    differences = _object(_object(subject.bundle.metadata, "known_differences"), "features")
    if differences:
        return Found(
            Verdict.WARN,
            f"{finding}; trained elsewhere, where these may have been computed otherwise: {'; '.join(differences)}",
            "hold its probabilities against those of the training code, or send the `features` form",
        )
    return Found(Verdict.OK, finding)


def _object(document: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def scaler(subject: Subject) -> Found:
    """The scaler has seen the training period and nothing after it."""
    try:
        periods = _PERIODS.validate_python(subject.bundle.metadata.get("data_ranges"))
        train = periods["train"]
    except (ValidationError, KeyError):
        return Found(
            Verdict.WARN,
            "metadata.json does not say which periods were trained and tested on, so it is unknown what the scaler saw",
            "ask whoever trained it; a scaler that saw the test period makes its metrics too good",
        )
    if train.start is None or train.end is None:
        return Found(Verdict.FAIL, "metadata.json knows no window that was trained on", "train it again")
    seen = f"fitted on the training period, {train.windows} windows from {train.start:%Y-%m-%d} to {train.end:%Y-%m-%d}"
    later = {name: p.start for name, p in periods.items() if name != "train" and p.start is not None}
    overlapping = [name for name, start in later.items() if start <= train.end]
    if overlapping:
        finding = f"{seen}, within which {' and '.join(overlapping)} begins"
        return Found(Verdict.FAIL, finding, "cut the periods by time and train again")
    begins = "; ".join(f"{name} begins on {start:%Y-%m-%d}" for name, start in later.items())
    return Found(Verdict.OK, f"{seen}; {begins}" if begins else seen)


def parity(subject: Subject) -> Found:
    """Served windows of real bars are what the full history gives."""
    if subject.features_only:
        advice = "hold its answers to real features against those of the training code before anybody trades on them"
        return Found(Verdict.WARN, f"{FEATURES_ONLY}: there are no bars to compute its windows from", advice)
    pipeline = subject.pipeline
    if subject.given.bars is None:
        raise NotExamined("there are no bars to look at", "give --data with bars such as it will be asked about")
    histories = histories_of(subject.bundle, rules_of(subject.bundle), subject.given.bars)
    stride = max(1, max(map(len, histories.bars.values())) // PARITY_WINDOWS)
    report = asyncio.run(audit_parity(pipeline, histories, stride))
    compared = f"{report.windows} windows of {', '.join(report.symbols) or 'no symbol'}, one decision point in {stride}"
    if report.ok:
        exact, interval = f"{compared}: to the bit what the full history gives", subject.doctor.get("interval")
        if interval is not None and interval.verdict is not Verdict.OK:
            return Found(interval.verdict, f"{exact}; but the {interval.finding}", interval.advice)
        return Found(Verdict.OK, exact)
    off = f"{report.window_mismatches} windows and {report.probability_mismatches} probabilities differ"
    refused = "".join(f"; {n} refused as {reason}" for reason, n in report.refused.items())
    return Found(
        Verdict.FAIL, f"{compared}: {off}{refused}", "`signalgraph audit parity` names symbol, time and feature"
    )


def handling(subject: Subject) -> Found:
    """What happens to gaps, absent columns and outliers is written down, in the bundle."""
    config = subject.bundle.config
    gaps = f"gaps: {config.nan_policy} within the window, at most {MAX_MISSING_SHARE:.0%} of it"
    absent = ", ".join(f"{name} = {value:g}" for name, value in config.exogenous.items()) or "nothing is optional"
    outliers = f"beyond ±{LARGEST:g}: refused"
    interval = f"one bar each {config.bar_interval_s:g} s"
    if subject.features_only:
        return Found(Verdict.OK, f"{FEATURES_ONLY}, {config.lookback_window} rows; {gaps}; {outliers}; {interval}")
    reads = f"{config.bars_needed} bars for a window of {config.lookback_window} rows"
    return Found(Verdict.OK, f"{gaps}; absent columns: {absent}; {outliers}; {reads}; {interval}")
