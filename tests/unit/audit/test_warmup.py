from dataclasses import replace

import pytest

from serve_app.audit import Histories, WarmupReport, audit_warmup
from serve_app.errors import TooFewBars
from serve_app.pipeline import Pipeline, rules_of
from serve_app.preprocess import TECH23
from serve_app.preprocess import indicators as ta
from serve_app.preprocess.feature_sets import CLOSE, Feature


def report_of(pipeline: Pipeline, histories: Histories, **definitions: Feature) -> WarmupReport:
    rules = rules_of(pipeline.bundle)
    feature_set = replace(TECH23, definitions={**TECH23.definitions, **definitions})
    return audit_warmup(replace(rules, feature_set=feature_set), histories)


def test_every_feature_of_the_shipped_bundles_reads_what_it_declares(pipeline: Pipeline, histories: Histories) -> None:
    report = report_of(pipeline, histories)
    assert report.ok
    assert (report.declared, report.measured, report.lookback_window) == (273, 273, 24)
    assert {f.feature: f.measured for f in report.features} == {n: d.memory for n, d in TECH23.definitions.items()}
    assert report.symbols == ("AAPL", "GOOG", "IBM", "MSFT")


@pytest.mark.parametrize(
    ("feature", "measured"),
    [
        (Feature(9, TECH23.definitions["SMA_10"].compute), 10),
        (Feature(12, lambda f: ta.sma(f[CLOSE], 10)[..., 2:]), 10),
        (Feature(11, TECH23.definitions["SMA_10"].compute), 10),
        (Feature(10, lambda f: ta.sma(f[CLOSE], 9)[..., 1:]), 9),
    ],
)
def test_a_wrong_declaration_is_found(pipeline: Pipeline, ibm: Histories, feature: Feature, measured: int) -> None:
    report = report_of(pipeline, ibm, SMA_10=feature)
    assert not report.ok
    wrong = [(f.feature, f.declared, f.measured) for f in report.features if not f.ok]
    assert wrong == [("SMA_10", feature.memory, measured)]


def test_the_total_disagrees_when_the_longest_feature_does(pipeline: Pipeline, ibm: Histories) -> None:
    longer = Feature(260, lambda f: ta.macd_signal(ta.macd_line(f[CLOSE]))[..., 10:])
    report = report_of(pipeline, ibm, MACD_signal=longer)
    assert (report.declared, report.measured, report.ok) == (283, 273, False)


def test_too_short_a_history_is_refused(pipeline: Pipeline, ibm: Histories) -> None:
    short = Histories({"IBM": ibm.bars["IBM"].tail(290)}, {})
    with pytest.raises(TooFewBars, match="300 bars"):
        report_of(pipeline, short)
