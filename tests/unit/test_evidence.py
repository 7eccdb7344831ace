"""From the journal to a verdict: pairs, what counts and what has to wait."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deployments.cli import main
from serve_app.config import JournalConfig
from serve_app.errors import EvidenceRefused
from serve_app.evidence import gather
from serve_app.journal import Journal, ScoredByBoth
from serve_app.model import Bundle, load_bundle
from serve_app.router.experiments import Advice, compare
from serve_app.types import Row
from tests.unit.decisions import DECIDED
from tests.unit.router.experiments.simulation import HORIZON, SYMBOLS, market
from tests.unit.router.experiments.test_paired import some

ROW = Row(1, features=np.ones((2, 3)))


def relabelled(bundle: Bundle, horizon_bars: int) -> Bundle:
    config = bundle.config
    return replace(bundle, config=config.model_copy(update={"label": replace(config.label, horizon_bars=horizon_bars)}))


@pytest.fixture
def bundles(pipeline_bundles: tuple[Bundle, Bundle]) -> tuple[Bundle, Bundle]:
    """Two that predict the same outcome, HORIZON bars ahead."""
    production, candidate = (relabelled(one, horizon_bars=HORIZON) for one in pipeline_bundles)
    return production, replace(candidate, config=candidate.config.model_copy(update={"label": production.config.label}))


@pytest.fixture
def pipeline_bundles() -> tuple[Bundle, Bundle]:
    return load_bundle("models/v1.0"), load_bundle("models/v1.1")


def test_a_verdict_is_that_of_the_pairs_whose_horizon_has_ended(bundles: tuple[Bundle, Bundle]) -> None:
    bars = 1_500
    pairs = market(1, bars, errors=(0.25, 0.05))
    production, candidate = bundles
    scored = [
        ScoredByBoth(str(i % SYMBOLS), time, {production.digest: p, candidate.digest: c}, int(y))
        for i, (time, p, c, y) in enumerate(
            zip(pairs.time, pairs.production.tolist(), pairs.candidate.tolist(), pairs.outcome.tolist(), strict=True)
        )
    ]
    found = gather(scored, *bundles)
    ended = (bars - HORIZON) * SYMBOLS
    assert found.counts == {"scored": bars * SYMBOLS, "compared": ended, "pending": HORIZON * SYMBOLS, "missing": 0}
    expected = compare(some(pairs, slice(ended)), HORIZON)
    np.testing.assert_array_equal(found.comparison.mean, expected.mean)
    np.testing.assert_array_equal(found.comparison.high, expected.high)
    assert found.verdict.advice is Advice.PROMOTE
    assert found.measured["candidate"]["n"] == ended
    better, worse = (found.measured[name]["brier"] for name in ("candidate", "production"))
    assert better is not None
    assert worse is not None
    assert better < worse
    document = json.loads(json.dumps(found.document()))
    assert document["verdict"]["advice"] == "promote"
    assert len(document["brier_difference"]["time"]) == len(expected)


def test_an_early_outcome_waits_for_its_horizon_and_one_that_never_came_is_missing(
    bundles: tuple[Bundle, Bundle],
) -> None:
    digests = [bundle.digest for bundle in bundles]
    hours = np.datetime64("2026-03-02", "us") + np.timedelta64(1, "h") * np.arange(HORIZON + 2)
    scored = [ScoredByBoth("IBM", hour, dict.fromkeys(digests, 0.5), None) for hour in hours]
    scored[0] = replace(scored[0], label=1)
    scored[-1] = replace(scored[-1], label=1)  # its target was reached within the bar: others of its time are open
    assert gather(scored, *bundles).counts == {"scored": 10, "compared": 1, "pending": 8, "missing": 1}
    few = gather(scored[:3], *bundles)
    assert few.counts["pending"] == 3
    assert few.verdict.advice is Advice.NOT_YET
    assert gather([], *bundles).document()["counts"]["scored"] == 0


def test_bundles_of_different_outcomes_are_not_compared(bundles: tuple[Bundle, Bundle]) -> None:
    production, candidate = bundles
    with pytest.raises(EvidenceRefused, match=r"v1\.0 and v1\.1 do not predict the same outcome"):
        gather([], production, relabelled(candidate, horizon_bars=HORIZON + 1))


def test_a_bundle_is_not_compared_with_itself(bundles: tuple[Bundle, Bundle]) -> None:
    with pytest.raises(EvidenceRefused, match="are the same bundle: name two"):
        gather([], bundles[0], bundles[0])


def test_the_command(tmp_path: Path, pipeline_bundles: tuple[Bundle, Bundle]) -> None:
    url = f"sqlite:///{tmp_path / 'kept.db'}"
    production, candidate = pipeline_bundles
    journal = Journal(JournalConfig(url=url, spool=str(tmp_path / "spool")))
    one = replace(DECIDED, bundle_digest=production.digest)
    journal.keep([(one, ROW)])
    journal.keep_shadows([replace(one, bundle_digest=candidate.digest, probability=0.2)])
    asyncio.run(journal.close())
    command = ["experiment", "report", "models/v1.0", "models/v1.1", "--journal", url]
    said = CliRunner().invoke(main, command)
    assert said.exit_code == 0, said.output
    assert "1 scored, 0 compared, 1 pending, 0 missing" in said.output
    assert "not_yet: no bar has counted yet" in said.output
    document = json.loads(CliRunner().invoke(main, [*command, "--json"]).output)
    assert document["counts"]["pending"] == 1
