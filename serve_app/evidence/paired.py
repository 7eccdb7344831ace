"""Two bundles that both predicted the same bars: which was nearer to what happened, and how sure that is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from serve_app.errors import EvidenceRefused
from serve_app.evidence.horizon import ends
from serve_app.journal import ScoredByBoth
from serve_app.model import Bundle
from serve_app.router.experiments import Comparison, Pairs, Scores, Verdict, compare, scores, verdict
from serve_app.types import FloatArray


@dataclass(frozen=True, slots=True)
class Paired:
    """The paired comparison of a candidate with production."""

    counts: dict[str, int]
    """Predictions by both: `scored`; of these `compared`, `pending` (their horizon has not ended), `censored` (nobody
    will ever know) and `missing` (it has ended, and nobody has reported what came of them)."""
    measured: dict[str, Scores]
    """By variant, on what was compared."""
    comparison: Comparison
    verdict: Verdict

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        seen = self.comparison
        return {
            "counts": self.counts,
            "variants": {name: asdict(measured) for name, measured in self.measured.items()},
            "brier_difference": {
                "time": [f"{time}Z" for time in np.datetime_as_string(seen.time, "s").tolist()],
                "bars": seen.bars.tolist(),
                "mean": seen.mean.tolist(),
                "low": seen.low.tolist(),
                "high": seen.high.tolist(),
            },
        }


def gather(scored: Sequence[ScoredByBoth], production: Bundle, candidate: Bundle) -> Paired:
    """Compare two bundles by what is in the journal. Raises EvidenceRefused for those that cannot be."""
    if production.digest == candidate.digest:
        raise EvidenceRefused(f"{production.version} and {candidate.version} are the same bundle: name two")
    definition = production.config.label
    if definition != candidate.config.label:
        raise EvidenceRefused(
            f"{production.version} and {candidate.version} do not predict the same outcome: {definition} and"
            f" {candidate.config.label}"
        )
    horizon = definition.horizon_bars
    known = ends((one.time for one in scored), horizon)
    ended = [one for one in scored if one.time in known]
    compared = [one for one in ended if one.label is not None]
    pairs = Pairs(
        time=np.array([one.time for one in compared], dtype="datetime64[us]"),
        known=np.array([known[one.time] for one in compared], dtype="datetime64[us]"),
        production=_probabilities(compared, production),
        candidate=_probabilities(compared, candidate),
        outcome=np.array([one.label == 1 for one in compared], dtype=bool),
    )
    seen = compare(pairs, horizon)
    censored = sum(one.censored for one in ended)
    thresholds = [bundle.config.strategy.signal_threshold for bundle in (production, candidate)]
    return Paired(
        counts={
            "scored": len(scored),
            "compared": len(compared),
            "pending": len(scored) - len(ended),
            "censored": censored,
            "missing": len(ended) - len(compared) - censored,
        },
        measured={
            "production": scores(pairs.production, pairs.outcome, thresholds[0]),
            "candidate": scores(pairs.candidate, pairs.outcome, thresholds[1]),
        },
        comparison=seen,
        verdict=verdict(seen),
    )


def _probabilities(scored: Sequence[ScoredByBoth], bundle: Bundle) -> FloatArray:
    return np.array([one.probabilities[bundle.digest] for one in scored], dtype=np.float64)
