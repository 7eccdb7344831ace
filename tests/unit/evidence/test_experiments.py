"""What is known of a candidate: from decisions, shadows, outcomes and the ledger to a report and its page."""

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient

from deployments.cli import main
from serve_app.api import Front, create_api
from serve_app.config import JournalConfig, RouterConfig
from serve_app.documentation import Examples
from serve_app.errors import UnknownExperiment
from serve_app.evidence import Experiments
from serve_app.evidence.page import page
from serve_app.journal import Journal, ReleaseLines
from serve_app.model import load_bundle
from serve_app.model.repository import Repository
from serve_app.router.changes import promoted, shadowed, split
from serve_app.router.releases import Author, Ledger, Release, Step
from serve_app.service import SignalService
from serve_app.types import Decision, Reason, Row, Status, VariantName, other_of
from tests.factories import PRODUCTION
from tests.unit.decisions import DECIDED

MODELS = PRODUCTION.parent
ADA = Author("ada", "because", datetime(2026, 3, 1, tzinfo=UTC))
FIRST = datetime(2026, 3, 2, tzinfo=UTC)
ROW = Row(1, features=np.ones((2, 3)))
PINNED = ("S2", "S3")
SYMBOLS = ("S0", "S1", *PINNED)
BARS = 1_200


@dataclass
class Market:
    """Hourly bars of four symbols, decided by both variants; the candidate knows more of what happens."""

    url: str
    journal: Journal
    ledger: Ledger
    digests: dict[VariantName, str]
    labels: dict[str, int | None] = field(default_factory=dict)

    def decide(self, bars: int, epoch: int) -> None:
        rng = np.random.default_rng(5)
        assigned = {name: VariantName.CANDIDATE if name in PINNED else VariantName.PRODUCTION for name in SYMBOLS}
        made, shadows = [], []
        for bar in range(bars):
            for symbol in SYMBOLS:
                label = int(rng.random() < 0.4)
                near = np.clip(rng.normal([0.45, 0.25 + 0.4 * label], 0.05), 0, 1)
                probabilities = dict(zip(VariantName, near.tolist(), strict=True))
                both = [self.decision(name, symbol, bar, epoch, probabilities[name]) for name in
                        (assigned[symbol], other_of(assigned[symbol]))]  # fmt: skip
                made.append((both[0], ROW))
                shadows.append(both[1])
                self.labels[both[0].decision_id] = label
        self.journal.keep(made)
        self.journal.keep_shadows(shadows)

    def decision(self, name: VariantName, symbol: str, bar: int, epoch: int, probability: float) -> Decision:
        return replace(
            DECIDED,
            decision_id=f"{symbol}-{bar}",
            symbol=symbol,
            timestamp=FIRST + timedelta(hours=bar),
            variant=name,
            bundle_digest=self.digests[name],
            epoch=epoch,
            probability=probability,
        )

    def report(self) -> dict[str, Any]:
        self.journal.ship()
        return experiments_of(self).report("v1.0-vs-v1.1")


def experiments_of(market: Market) -> Experiments:
    repository = Repository(MODELS)
    return Experiments(market.journal.engine, market.ledger, repository.names, repository.bundle)


@pytest.fixture
def market(tmp_path: Path) -> Iterator[Market]:
    """A shadow, and two of four symbols pinned to the candidate: epoch 3."""
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    journal = Journal(JournalConfig(url=url, spool=str(tmp_path / "spool")))
    ledger = Ledger(ReleaseLines(journal.engine))
    production, candidate = (load_bundle(MODELS / version).digest for version in ("v1.0", "v1.1"))
    ledger.seed(Release(production=production, candidate=candidate), ADA)
    ledger.change(Step.SPLIT, split(None, None, dict.fromkeys(PINNED, VariantName.CANDIDATE)), ADA)
    ledger.change(Step.SHADOW, shadowed(on=True), ADA)
    digests = {VariantName.PRODUCTION: production, VariantName.CANDIDATE: candidate}
    yield Market(url, journal, ledger, digests)
    asyncio.run(journal.close())


def report_outcomes(market: Market, labels: dict[str, int | None]) -> None:
    market.journal.ship()
    items = list(labels.items())
    for begin in range(0, len(items), 500):
        asyncio.run(market.journal.report(dict(items[begin : begin + 500])))


def test_a_better_candidate_is_found_and_the_weak_comparison_says_how_weak_it_is(market: Market) -> None:
    market.decide(BARS, epoch=3)
    report_outcomes(market, market.labels)
    found = json.loads(json.dumps(market.report()))
    assert found["verdict"]["advice"] == "promote"
    assert found["doubts"] == []
    assert found["experiment"]["epochs"] == [1, 2, 3]
    horizon = load_bundle(MODELS / "v1.0").config.label.horizon_bars
    assert found["paired"]["counts"]["compared"] == (BARS - horizon) * len(SYMBOLS)
    for name in VariantName:
        outcomes = found["variants"][name]["outcomes"]
        assert outcomes == {"known": 2 * (BARS - horizon), "censored": 0, "missing": 0, "pending": 2 * horizon}
        assert found["variants"][name]["answered"] == sum(found["variants"][name]["distribution"]) == 2 * BARS
    better, worse = (found["variants"][name]["scores"]["brier"] for name in ("candidate", "production"))
    assert found["split"]["difference"] == pytest.approx(better - worse)
    assert found["split"]["high"] < 0
    assert found["split"]["symbols"] == {"production": 2, "candidate": 2}


def test_what_the_ledger_did_not_assign_is_counted_and_raises_a_doubt(market: Market) -> None:
    market.decide(20, epoch=3)
    wrong = market.decision(VariantName.CANDIDATE, "S0", 30, 3, 0.5)
    other_bundle = replace(market.decision(VariantName.PRODUCTION, "S0", 31, 3, 0.5), bundle_digest="sha256:0")
    market.journal.keep([(wrong, ROW), (other_bundle, ROW)])
    found = market.report()
    assert found["integrity"]["assignment_mismatches"] == 2
    assert found["doubts"] == ["2 decisions are not of the variant that the ledger assigned"]


def test_outcomes_that_one_variant_loses_raise_a_doubt_and_censored_ones_do_not(market: Market) -> None:
    market.decide(60, epoch=3)
    candidates = [i for i in market.labels if i.startswith(PINNED)]
    report_outcomes(market, {i: None if i in candidates[::2] else label for i, label in market.labels.items()})
    fair = market.report()
    assert fair["doubts"] == []
    assert fair["variants"]["candidate"]["outcomes"]["censored"] > 0


def test_outcomes_that_never_came_for_one_variant_raise_a_doubt(market: Market) -> None:
    market.decide(60, epoch=3)
    bad = {i for i, label in market.labels.items() if i.startswith(PINNED) and not label}
    report_outcomes(market, {i: label for i, label in market.labels.items() if i not in bad})
    found = market.report()
    assert found["variants"]["candidate"]["outcomes"]["missing"] > 0
    assert found["doubts"] == [
        f"the variants do not miss outcomes alike (p = {found['integrity']['missing_outcomes_p']:.2g}): find out why"
    ]


def test_abstentions_are_counted_by_reason_and_judge_nobody(market: Market) -> None:
    one = market.decision(VariantName.PRODUCTION, "S0", 0, 3, 0.5)
    none = replace(one, status=Status.ABSTAIN, reason=Reason.DEADLINE, probability=None, window_crc=None)
    market.journal.keep([(none, ROW), (replace(one, decision_id="b", timestamp=None), ROW)])
    found = market.report()
    assert found["variants"]["production"]["abstained"] == {"deadline": 1}
    assert found["variants"]["production"]["answered"] == 1
    assert found["split"] is None
    assert found["verdict"]["advice"] == "not_yet"


def test_a_pair_is_an_experiment_and_the_same_pair_the_other_way_round_another(market: Market) -> None:
    market.ledger.fail("a failure is no experiment", ADA)
    market.ledger.change(Step.PROMOTE, promoted, ADA)
    found = experiments_of(market).list()
    assert [(one["name"], one["epochs"]) for one in found] == [("v1.0-vs-v1.1", [1, 2, 3]), ("v1.1-vs-v1.0", [4])]
    with pytest.raises(UnknownExperiment, match=r"there is no experiment v7; there are v1\.0-vs-v1\.1, v1\.1-vs-v1\.0"):
        experiments_of(market).report("v7")


def test_the_page_shows_the_verdict_the_doubts_and_three_plots(market: Market) -> None:
    assert page(market.report()).count("</svg>") == 3  # of nothing yet
    market.decide(BARS, epoch=3)
    market.journal.keep([(market.decision(VariantName.CANDIDATE, "S0", BARS, 3, 0.5), ROW)])
    report_outcomes(market, market.labels)
    html = page(market.report())
    assert "<b>promote</b>: the candidate's Brier score differs by" in html.replace("&#x27;", "'")
    assert "Not to be believed: 1 decisions are not of the variant" in html
    assert "epochs 1\u20133" in html
    # Nothing is fetched: what is named is the vocabulary of SVG.
    assert not re.search(r"(src|href)=.http", html)
    assert html.count("</svg>") == 3


def test_what_names_itself_like_a_tag_does_no_harm(market: Market) -> None:
    found = market.report()
    found["experiment"]["name"] = found["doubts"] = ["<script>"]
    found["experiment"]["name"] = "<script>alert(1)</script>"
    assert "<script>" not in page(found)


@pytest.mark.usefixtures("in_the_clone")
def test_the_commands(market: Market, tmp_path: Path) -> None:
    market.decide(20, epoch=3)
    report_outcomes(market, {})
    market.journal.ship()
    listed = CliRunner().invoke(main, ["experiment", "list", "--journal", market.url])
    assert "v1.0-vs-v1.1" in listed.output, listed.output
    command = ["experiment", "report", "v1.0-vs-v1.1", "--journal", market.url]
    said = CliRunner().invoke(main, [*command, "--html", str(tmp_path / "page.html")])
    assert said.exit_code == 0, said.output
    assert "predicted by both: 80 scored, 0 compared, " in said.output
    assert "production answered 40; outcomes 0 known" in said.output
    assert "not_yet: no bar has counted yet" in said.output
    assert "<svg" in (tmp_path / "page.html").read_text()
    assert json.loads(CliRunner().invoke(main, [*command, "--json"]).output)["experiment"]["name"] == "v1.0-vs-v1.1"
    unknown = CliRunner().invoke(main, ["experiment", "report", "v7", "--journal", market.url])
    assert "there is no experiment v7" in unknown.output


def test_over_http_as_json_and_as_a_page(market: Market) -> None:
    async def monitor() -> dict[str, Any]:
        return {}

    front = Front(
        service=SignalService({}, Release(production="sha256:0").assigned()),
        config=RouterConfig(),
        examples=Examples({}, {}, {}),
        record=lambda *_: None,
        monitor=monitor,
        experiments=experiments_of(market),
    )
    with TestClient(create_api(front)) as client:
        assert [one["name"] for one in client.get("/v1/experiments").json()["experiments"]] == ["v1.0-vs-v1.1"]
        found = client.get("/v1/experiments/v1.0-vs-v1.1")
        assert found.json()["verdict"]["advice"] == "not_yet"
        shown = client.get("/v1/experiments/v1.0-vs-v1.1", headers={"Accept": "text/html,*/*"})
        assert shown.headers["content-type"].startswith("text/html")
        assert "<svg" in shown.text
        missing = client.get("/v1/experiments/v7")
        assert (missing.status_code, missing.json()["code"]) == (404, "unknown_experiment")
