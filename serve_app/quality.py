"""How good the predictions of one bundle are, by the outcomes that are known."""

from dataclasses import asdict
from typing import Any

from serve_app.monitor import Judged, Learnt, effective_size, loss, losses, side
from serve_app.types import Matured

LEVEL = 0.95


def judge(matured: Matured, learnt: Learnt | None) -> Judged:
    """Hold predictions against outcomes; without knowing the bundle, only which side of 0.5 they were on."""
    horizon = learnt.horizon_bars if learnt else None
    found = loss(losses(matured, horizon)) if horizon else None
    document = _document(matured, learnt)
    return Judged(matured.probabilities, matured.labels, found, document, matured.model_version)


def _document(matured: Matured, learnt: Learnt | None) -> dict[str, Any] | None:
    """Return the scores, and how sure the accuracy is, counting outcomes that overlap as what they are worth."""
    if learnt is None or learnt.horizon_bars is None or learnt.signal_threshold is None:
        return None
    # Heavy, and of no use to a router that serves.
    from scipy.stats import binomtest  # noqa: PLC0415

    from serve_app.router.experiments import scores  # noqa: PLC0415

    happened = matured.labels == 1
    n = round(effective_size(matured, learnt.horizon_bars))
    right = float((side(matured.probabilities) == happened).mean())
    band = binomtest(round(right * n), n).proportion_ci(LEVEL, "wilson") if n else None
    return {
        **asdict(scores(matured.probabilities, happened, learnt.signal_threshold)),
        "effective_n": n,
        "accuracy": right,
        "accuracy_low": band and float(band.low),
        "accuracy_high": band and float(band.high),
    }
