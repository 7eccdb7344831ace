"""The report of one experiment, put together from the journal and the ledger."""

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Engine

from serve_app.evidence import integrity, split
from serve_app.evidence.horizon import ends
from serve_app.evidence.paired import gather
from serve_app.journal import scored_by_both
from serve_app.journal.answers import answered
from serve_app.model import Bundle
from serve_app.router.releases import Entry
from serve_app.types import VariantName


def report(
    engine: Engine, epochs: Collection[int], entries: Iterable[Entry], production: Bundle, candidate: Bundle
) -> dict[str, Any]:
    """Return the verdict on two bundles, and all that it rests on. Raises EvidenceRefused or JournalUnavailable."""
    both = gather(scored_by_both(engine, [production.digest, candidate.digest]), production, candidate)
    answers = answered(engine, epochs)
    bars = answers["timestamp"].dropna().dt.tz_localize(None).to_numpy("datetime64[us]")
    judged = split.first_of_bar(answers, ends(bars, production.config.label.horizon_bars))
    checked = integrity.check(answers, entries, split.matured(judged))
    compared = split.compare(judged)
    variants = {}
    for variant, bundle in ((VariantName.PRODUCTION, production), (VariantName.CANDIDATE, candidate)):
        mine = [frame[frame["variant"] == variant] for frame in (answers, judged)]
        measured = split.summary(mine[0], mine[1], bundle.config.strategy.signal_threshold)
        variants[str(variant)] = {"version": bundle.version, "digest": bundle.digest, **measured}
    return {
        "verdict": asdict(both.verdict),
        "doubts": checked.doubts(),
        "paired": both.document(),
        "variants": variants,
        "split": compared and asdict(compared),
        "integrity": asdict(checked),
    }
