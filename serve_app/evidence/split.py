"""What each variant answered by itself, and the comparison of symbols that are not the same: weak, and said to be."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from serve_app.router.experiments import Matured, calibration, scores
from serve_app.types import FloatArray, Status, VariantName

LEVEL = 0.95
BINS = 20
"""Of the distribution of probabilities."""
FEWEST = 2
"""Symbols of each variant, and bars: of one, nothing tells what is its own from what is the variant's."""


@dataclass(frozen=True, slots=True)
class SplitComparison:
    """The mean Brier difference, candidate less production, over the symbols that each answered."""

    difference: float
    low: float
    high: float
    symbols: Mapping[str, int]
    bars: int


def first_of_bar(answers: pd.DataFrame, ended: Mapping[np.datetime64, np.datetime64]) -> pd.DataFrame:
    """Return the first answer to each symbol and bar whose horizon has ended."""
    answers = answers[(answers["status"] == Status.OK) & answers["timestamp"].notna()]
    bars = answers["timestamp"].dt.tz_localize(None).to_numpy("datetime64[us]")
    return answers[np.array([bar in ended for bar in bars], dtype=bool)].drop_duplicates(["symbol", "timestamp"])


def matured(judged: pd.DataFrame) -> dict[VariantName, Matured]:
    """Return of how many judged answers of each variant the outcome is known, and of how many it is missing."""
    found = {}
    for name in VariantName:
        reported = judged.loc[judged["variant"] == name, "reported"]
        found[name] = Matured(int(reported.sum()), int((~reported).sum()))
    return found


def summary(answers: pd.DataFrame, judged: pd.DataFrame, signal_threshold: float) -> dict[str, Any]:
    """Return how much one variant answered, how fast, and how well, by its answers and the judged ones of them."""
    ok = answers[answers["status"] == Status.OK]
    known = judged[judged["label"].notna()]
    probability, outcome = known["probability"].to_numpy(), known["label"].to_numpy() == 1
    histogram, _ = np.histogram(ok["probability"], BINS, (0, 1))
    return {
        "answered": len(ok),
        "abstained": {str(k): int(n) for k, n in answers["reason"].value_counts().items()},
        "latency_ms": {f"p{q}": _quantile(ok["latency_ms"].to_numpy(), q / 100) for q in (50, 95)},
        "outcomes": {
            "known": len(known),
            "censored": int((judged["reported"] & judged["label"].isna()).sum()),
            "missing": int((~judged["reported"]).sum()),
            "pending": len(ok) - len(judged),
        },
        "scores": asdict(scores(probability, outcome, signal_threshold)),
        "calibration": [asdict(one) for one in calibration(probability, outcome)],
        "distribution": histogram.tolist(),
    }


def _quantile(values: FloatArray, q: float) -> float | None:
    return float(np.quantile(values, q)) if len(values) else None


def compare(judged: pd.DataFrame) -> SplitComparison | None:
    """Compare what is known of both variants' answers; None where there are too few symbols or bars.

    The errors of one bar are alike, and so are those of one symbol: the variance is clustered by both (Cameron, Gelbach
    and Miller, "Robust Inference With Multiway Clustering", 2011), by statsmodels. With few clusters that estimate may
    be too small, even negative: the largest of it and of those by symbol and by bar counts, with as many degrees of
    freedom as the fewest clusters give.
    """
    import statsmodels.api as sm  # noqa: PLC0415  heavy, and of no use to a router that serves
    from statsmodels.stats.sandwich_covariance import cov_cluster_2groups  # noqa: PLC0415

    known = judged[judged["label"].notna()]
    symbols = {str(name): known.loc[known["variant"] == name, "symbol"].nunique() for name in VariantName}
    bars = known["timestamp"].nunique()
    if min(*symbols.values(), bars) < FEWEST:
        return None
    loss = (known["probability"].to_numpy() - known["label"].to_numpy()) ** 2
    candidate = (known["variant"] == VariantName.CANDIDATE).to_numpy(dtype=float)
    by_symbol, by_bar = (pd.factorize(known[name])[0] for name in ("symbol", "timestamp"))
    fitted = sm.OLS(loss, sm.add_constant(candidate)).fit()
    variances = [covariance[1, 1] for covariance in cov_cluster_2groups(fitted, by_symbol, by_bar)]
    clusters = min(known["symbol"].nunique(), bars)
    width = student.ppf((1 + LEVEL) / 2, clusters - 1) * np.sqrt(max(variances))
    difference = float(fitted.params[1])
    return SplitComparison(difference, float(difference - width), float(difference + width), symbols, bars)
