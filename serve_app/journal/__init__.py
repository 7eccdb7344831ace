"""The journal: what was decided and what is in force, in a database that outlives the graph."""

from serve_app.journal.alarms import Alarms
from serve_app.journal.counts import count, matured, newest_outcome
from serve_app.journal.journal import Journal
from serve_app.journal.outcomes import Labels, Report
from serve_app.journal.pairs import ScoredByBoth, scored_by_both
from serve_app.journal.record import Record, decision_of, unpack_row
from serve_app.journal.store import ReleaseLines, connect, from_here, is_same
from serve_app.journal.vitals import vitals

__all__ = [
    "Alarms",
    "Journal",
    "Labels",
    "Record",
    "ReleaseLines",
    "Report",
    "ScoredByBoth",
    "connect",
    "count",
    "decision_of",
    "from_here",
    "is_same",
    "matured",
    "newest_outcome",
    "scored_by_both",
    "unpack_row",
    "vitals",
]
