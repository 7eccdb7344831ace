"""What the journal says of two bundles that both predicted the same bars: which was nearer, and how sure that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.errors import EvidenceRefused
from serve_app.journal import ScoredByBoth
from serve_app.model import Bundle
from serve_app.router.experiments import Comparison, Pairs, Verdict, compare, verdict
from serve_app.training.metrics import evaluate
from serve_app.types import FloatArray


@dataclass(frozen=True, slots=True)
class Evidence:
    """The paired comparison of a candidate with production."""

    counts: dict[str, int]
    """Predictions by both: `scored`; of these `compared`, `pending` (their horizon has not ended) and `missing`
    (it has, and nobody has reported what came of them)."""
    measured: dict[str, dict[str, float | None]]
    """By variant, on what was compared; see `serve_app.training.metrics.evaluate`."""
    comparison: Comparison
    verdict: Verdict

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        seen = self.comparison
        return {
            "counts": self.counts,
            "variants": self.measured,
            "verdict": asdict(self.verdict),
            "brier_difference": {
                "time": [f"{time}Z" for time in np.datetime_as_string(seen.time, "s").tolist()],
                "bars": seen.bars.tolist(),
                "mean": seen.mean.tolist(),
                "low": seen.low.tolist(),
                "high": seen.high.tolist(),
            },
        }


def gather(scored: Sequence[ScoredByBoth], production: Bundle, candidate: Bundle) -> Evidence:
    """Compare two bundles by what is in the journal. Raises EvidenceRefused for those that cannot be.

    Time is that of the bars, not of the clock: a horizon of h bars has ended when h later bars have been asked about,
    of whatever symbol. What came earlier than that is not compared yet, even where the outcome is known: a target that
    is reached at once is known sooner than one that is not, so that the first outcomes to come are the good ones.
    """
    if production.digest == candidate.digest:
        raise EvidenceRefused(f"{production.version} and {candidate.version} are the same bundle: name two")
    definition = production.config.label
    if definition != candidate.config.label:
        raise EvidenceRefused(
            f"{production.version} and {candidate.version} do not predict the same outcome: {definition} and"
            f" {candidate.config.label}"
        )
    horizon = definition.horizon_bars
    times = np.unique(np.array([one.time for one in scored], dtype="datetime64[us]"))
    known = dict(zip(times[:-horizon].tolist(), times[horizon:], strict=True))
    ended = [one for one in scored if one.time.item() in known]
    compared = [one for one in ended if one.label is not None]
    pairs = Pairs(
        time=np.array([one.time for one in compared], dtype="datetime64[us]"),
        known=np.array([known[one.time.item()] for one in compared], dtype="datetime64[us]"),
        production=_probabilities(compared, production),
        candidate=_probabilities(compared, candidate),
        outcome=np.array([one.label == 1 for one in compared], dtype=bool),
    )
    seen = compare(pairs, horizon)
    labels = pairs.outcome.astype(np.float64)
    return Evidence(
        counts={
            "scored": len(scored),
            "compared": len(compared),
            "pending": len(scored) - len(ended),
            "missing": len(ended) - len(compared),
        },
        measured={
            "production": evaluate(labels, pairs.production, production.config.strategy.signal_threshold),
            "candidate": evaluate(labels, pairs.candidate, candidate.config.strategy.signal_threshold),
        },
        comparison=seen,
        verdict=verdict(seen),
    )


def _probabilities(scored: Sequence[ScoredByBoth], bundle: Bundle) -> FloatArray:
    return np.array([one.probabilities[bundle.digest] for one in scored], dtype=np.float64)
