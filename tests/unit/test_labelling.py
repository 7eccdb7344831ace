"""Outcomes from later bars."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from deployments.cli import main
from serve_app.config import JournalConfig
from serve_app.journal import Journal
from serve_app.journal.outcomes import Outcomes
from serve_app.labelling import Labelled, label_decisions
from serve_app.model import load_bundle
from serve_app.model.repository import Repository
from serve_app.training.labels import label
from serve_app.types import Bars, Reason, Row, Status
from tests.factories import PRODUCTION, with_value
from tests.unit.decisions import DECIDED

ROW = Row(1, features=np.ones((2, 3)))
NOW = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(JournalConfig(url=f"sqlite:///{tmp_path / 'kept.db'}", spool=str(tmp_path / "spool")))


def decide(journal: Journal, bars: Bars, places: list[int], symbol: str = "IBM", version: str = "v1.0") -> list[str]:
    """Keep a decision at each of some bars; return their ids."""
    digest = load_bundle(PRODUCTION.with_name(version)).digest
    made = []
    for place in places:
        time = bars.timestamp[place].item().replace(tzinfo=UTC)
        one = replace(DECIDED, decision_id=f"{symbol}-{place}", symbol=symbol, timestamp=time, bundle_digest=digest)
        made.append((one, ROW))
    journal.keep(made)
    journal.ship()
    return [one.decision_id for one, _ in made]


def test_a_label_is_that_of_training_and_what_is_too_early_stays_open(journal: Journal, bars: dict[str, Bars]) -> None:
    ibm = bars["IBM"]
    horizon = load_bundle(PRODUCTION).config.label.horizon_bars
    places = [*range(300, 340), len(ibm) - horizon - 1, len(ibm) - horizon, len(ibm) - 1]
    ids = decide(journal, ibm, places)
    bundles = Repository(PRODUCTION.parent).bundle
    found = label_decisions(Outcomes(journal.engine), bars, bundles, NOW)
    assert [found[i] for i in ids] == [Labelled.LABELLED] * 41 + [Labelled.OPEN] * 2
    expected = label(ibm, load_bundle(PRODUCTION).config.label)[places[:41]]
    again = asyncio.run(journal.report({i: int(y) for i, y in zip(ids[:41], expected, strict=True)}))
    assert set(again.values()) == {"repeated"}
    assert len(set(expected)) == 2
    assert set(label_decisions(Outcomes(journal.engine), bars, bundles, NOW)) == set(ids[41:])


def test_a_price_that_is_missing_censors_for_good(journal: Journal, bars: dict[str, Bars]) -> None:
    (identity,) = decide(journal, bars["IBM"], [300])
    holed = {"IBM": with_value(bars["IBM"], "low", 302, np.nan)}
    bundles = Repository(PRODUCTION.parent).bundle
    assert label_decisions(Outcomes(journal.engine), holed, bundles, NOW) == {identity: Labelled.CENSORED}
    assert label_decisions(Outcomes(journal.engine), bars, bundles, NOW) == {}
    assert asyncio.run(journal.report({identity: None})) == {identity: "repeated"}
    assert asyncio.run(journal.report({identity: 1})) == {identity: "conflicting"}


def test_what_the_data_or_the_models_do_not_have_is_said(journal: Journal, bars: dict[str, Bars]) -> None:
    ids = decide(journal, bars["IBM"], [300], symbol="NOPE") + decide(journal, bars["IBM"], [300])
    between = replace(DECIDED, decision_id="between", symbol="IBM", bundle_digest=load_bundle(PRODUCTION).digest)
    late = bars["IBM"].timestamp[300].item().replace(tzinfo=UTC, minute=7)
    foreign = replace(DECIDED, decision_id="foreign", symbol="IBM", timestamp=late, bundle_digest="sha256:0")
    abstained = replace(between, decision_id="none", status=Status.ABSTAIN, reason=Reason.DEADLINE, probability=None)
    untimed = replace(between, decision_id="untimed", timestamp=None)
    journal.keep([(replace(between, timestamp=late), ROW), (foreign, ROW), (abstained, ROW), (untimed, ROW)])
    journal.ship()
    found = label_decisions(Outcomes(journal.engine), bars, Repository(PRODUCTION.parent).bundle, NOW)
    assert found == {
        ids[0]: Labelled.ABSENT,
        ids[1]: Labelled.LABELLED,
        "between": Labelled.ABSENT,
        "foreign": Labelled.UNKNOWN,
    }


@pytest.mark.usefixtures("in_the_clone")
def test_the_command(journal: Journal, bars: dict[str, Bars], tmp_path: Path) -> None:
    decide(journal, bars["IBM"], [300, 301])
    ibm = bars["IBM"]
    frame = pd.DataFrame({"timestamp": ibm.timestamp, "symbol": "IBM", **ibm.columns}).iloc[:350]
    frame.to_csv(tmp_path / "bars.csv", index=False)
    command = ["outcomes", "label", "--data", str(tmp_path / "bars.csv"), "--journal", str(journal.engine.url)]
    said = CliRunner().invoke(main, command)
    assert said.output == "2 labelled\n"
    assert CliRunner().invoke(main, command).output == "nothing to label\n"
