"""What is said of predictions whose outcome is known, by the definitions of the bundle."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from serve_app.monitor import Learnt
from serve_app.quality import judge
from serve_app.types import Matured

LEARNT = Learnt("v1.0", None, horizon_bars=5, signal_threshold=0.6)


def matured(n: int = 200) -> Matured:
    """One symbol, bar after bar; predictions that are right more often than not."""
    rng = np.random.default_rng(0)
    probabilities = rng.random(n)
    labels = (rng.random(n) < probabilities).astype(float)
    times = np.datetime64("2013-01-01", "us") + np.arange(n) * np.timedelta64(1, "h")
    return Matured("sha256:0", "v1.0", probabilities, labels, np.full(n, "IBM"), times)


def test_scores_are_those_of_scikit_learn_beside_the_base_rate() -> None:
    known = matured()
    document = judge(known, LEARNT).document
    assert document is not None
    assert document["average_precision"] == pytest.approx(average_precision_score(known.labels, known.probabilities))
    assert document["base_rate"] == known.labels.mean()
    assert document["signals"] == int((known.probabilities >= 0.6).sum())


def test_the_accuracy_is_as_sure_as_outcomes_that_do_not_overlap_would_make_it() -> None:
    document = judge(matured(), LEARNT).document
    assert document is not None
    assert document["n"] == 200
    assert document["effective_n"] == pytest.approx(40, abs=2)
    alone = judge(matured(), Learnt("v1.0", None, horizon_bars=1, signal_threshold=0.6)).document
    assert alone is not None
    width = [one["accuracy_high"] - one["accuracy_low"] for one in (document, alone)]
    assert width[0] == pytest.approx(np.sqrt(5) * width[1], rel=0.1)
    assert document["accuracy_low"] < document["accuracy"] < document["accuracy_high"]


@pytest.mark.parametrize("learnt", [None, Learnt("sha256:0")])
def test_of_a_bundle_that_is_not_known_only_sides_are(learnt: Learnt | None) -> None:
    judged = judge(matured(), learnt)
    assert (judged.document, judged.loss) == (None, None)
    assert len(judged.labels) == 200
