"""The journal: what was decided and what is in force, in a database that outlives the graph."""

from serve_app.journal.journal import Journal
from serve_app.journal.outcomes import Report
from serve_app.journal.record import Record, unpack_row
from serve_app.journal.store import ReleaseLines, connect, from_here

__all__ = ["Journal", "Record", "ReleaseLines", "Report", "connect", "from_here", "unpack_row"]
