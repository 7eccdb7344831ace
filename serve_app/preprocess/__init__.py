"""Bars → features → scaled windows."""

from serve_app.preprocess.feature_sets import FEATURE_SETS, TECH23, FeatureSet, names_only
from serve_app.preprocess.interval import usual_interval_s
from serve_app.preprocess.scaling import Scaler
from serve_app.preprocess.stage import Preprocess, fill_forward
from serve_app.preprocess.validation import HistoryRules, check_bars, check_history, recent_rows

__all__ = [
    "FEATURE_SETS",
    "TECH23",
    "FeatureSet",
    "HistoryRules",
    "Preprocess",
    "Scaler",
    "check_bars",
    "check_history",
    "fill_forward",
    "names_only",
    "recent_rows",
    "usual_interval_s",
]
