"""What an experiment shows: whether a candidate's predictions are better than production's, and how sure that is."""

from serve_app.router.experiments.integrity import SUSPICIOUS, Matured, missing_outcomes
from serve_app.router.experiments.paired import Comparison, Pairs, compare
from serve_app.router.experiments.scores import Scores, calibration, scores
from serve_app.router.experiments.verdict import Verdict, verdict

__all__ = [
    "SUSPICIOUS",
    "Comparison",
    "Matured",
    "Pairs",
    "Scores",
    "Verdict",
    "calibration",
    "compare",
    "missing_outcomes",
    "scores",
    "verdict",
]
