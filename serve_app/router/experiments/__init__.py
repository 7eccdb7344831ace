"""What an experiment shows: whether a candidate's predictions are better than production's, and how sure that is."""

from serve_app.router.experiments.paired import Comparison, Pairs, compare

__all__ = ["Comparison", "Pairs", "compare"]
