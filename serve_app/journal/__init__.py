"""The journal: what was decided and what is in force, in a database that outlives the graph."""

from serve_app.journal.store import ReleaseLines, connect, from_here

__all__ = ["ReleaseLines", "connect", "from_here"]
