"""From the journal to a verdict: pairs, what counts and what has to wait."""

import json
from dataclasses import replace

import numpy as np
import pytest

from serve_app.errors import EvidenceRefused
from serve_app.evidence.paired import gather
from serve_app.journal import ScoredByBoth
from serve_app.model import Bundle, load_bundle
from serve_app.router.experiments import compare
from serve_app.types import Advice, Row
from tests.factories import CANDIDATE, PRODUCTION
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
    return load_bundle(PRODUCTION), load_bundle(CANDIDATE)


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
    assert found.counts == {
        "scored": bars * SYMBOLS,
        "compared": ended,
        "pending": HORIZON * SYMBOLS,
        "censored": 0,
        "missing": 0,
    }
    expected = compare(some(pairs, slice(ended)), HORIZON)
    np.testing.assert_array_equal(found.comparison.mean, expected.mean)
    np.testing.assert_array_equal(found.comparison.high, expected.high)
    assert found.verdict.advice is Advice.PROMOTE
    assert found.measured["candidate"].n == ended
    better, worse = (found.measured[name].brier for name in ("candidate", "production"))
    assert better is not None
    assert worse is not None
    assert better < worse
    document = json.loads(json.dumps(found.document()))
    assert len(document["brier_difference"]["time"]) == len(expected)


def test_an_early_outcome_waits_for_its_horizon_and_one_that_never_came_is_missing(
    bundles: tuple[Bundle, Bundle],
) -> None:
    digests = [bundle.digest for bundle in bundles]
    hours = np.datetime64("2026-03-02", "us") + np.timedelta64(1, "h") * np.arange(HORIZON + 2)
    scored = [ScoredByBoth("IBM", hour, dict.fromkeys(digests, 0.5), None) for hour in hours]
    scored[0] = replace(scored[0], label=1)
    scored[-1] = replace(scored[-1], label=1)  # its target was reached within the bar: others of its time are open
    assert gather(scored, *bundles).counts == {
        "scored": 10,
        "compared": 1,
        "pending": 8,
        "censored": 0,
        "missing": 1,
    }
    scored[1] = replace(scored[1], censored=True)
    counts = gather(scored, *bundles).counts
    assert (counts["censored"], counts["missing"]) == (1, 0)
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
