"""What an experiment shows: whether a candidate's predictions are better than production's, and how sure that is."""

from serve_app.router.experiments.paired import Comparison, Pairs, compare
from serve_app.router.experiments.verdict import Advice, Verdict, verdict

__all__ = ["Advice", "Comparison", "Pairs", "Verdict", "compare", "verdict"]
