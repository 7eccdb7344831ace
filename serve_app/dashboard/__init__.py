"""What the page at `/dashboard` shows: gathered once a second for all who look, and sent to them as it comes."""

from pathlib import Path

from serve_app.dashboard.feed import Feed
from serve_app.dashboard.view import Sources, View

STATIC = Path(__file__).parent / "static"
"""The page itself, with all that it needs."""

__all__ = ["STATIC", "Feed", "Sources", "View"]
