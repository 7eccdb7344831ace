"""What both models predicted of the same bar, and what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sqlalchemy import Engine, select

from serve_app.journal.schema import decisions, outcomes, shadows
from serve_app.journal.store import answering
from serve_app.types import Status


@dataclass(frozen=True, slots=True)
class ScoredByBoth:
    """One symbol at one bar."""

    symbol: str
    time: np.datetime64
    """Of the bar, UTC."""
    probabilities: dict[str, float]
    """By the digest of the bundle."""
    label: int | None
    """None: nobody has reported one, or it is censored."""
    censored: bool = False
    """Whether it was reported that nobody will ever know."""


def scored_by_both(engine: Engine, digests: Sequence[str]) -> list[ScoredByBoth]:
    """Return what two bundles both predicted; of what was asked again only the first. Raises JournalUnavailable.

    Which one answered and which one was the shadow makes no difference. Without the time of its bar, as features may
    be sent, a decision cannot be put beside others, and is not here.
    """
    query = (
        select(
            decisions.c.symbol,
            decisions.c.timestamp,
            decisions.c.bundle_digest,
            decisions.c.probability,
            shadows.c.bundle_digest.label("other_digest"),
            shadows.c.probability.label("other_probability"),
            outcomes.c.label,
            outcomes.c.at,
        )
        .join(shadows, shadows.c.decision_id == decisions.c.decision_id)
        .outerjoin(outcomes, outcomes.c.decision_id == decisions.c.decision_id)
        .where(decisions.c.status == Status.OK, shadows.c.status == Status.OK, decisions.c.timestamp.is_not(None))
        .where(decisions.c.bundle_digest.in_(digests), shadows.c.bundle_digest.in_(digests))
        .where(decisions.c.bundle_digest != shadows.c.bundle_digest)
        .order_by(decisions.c.at, decisions.c.decision_id)
    )
    first: dict[tuple[str, np.datetime64], ScoredByBoth] = {}
    with answering(), engine.connect() as connection:
        for symbol, timestamp, digest, probability, other, other_probability, label, reported in connection.execute(
            query
        ):
            time = np.datetime64(timestamp.replace(tzinfo=None), "us")
            probabilities = {digest: probability, other: other_probability}
            censored = label is None and reported is not None
            first.setdefault((symbol, time), ScoredByBoth(symbol, time, probabilities, label, censored))
    return list(first.values())
