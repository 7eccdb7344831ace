"""The checklist before a deployment as one examination: every item with its evidence, a verdict, and what to do."""

from serve_app.preflight.checklist import Item, Preflight, preflight
from serve_app.preflight.subject import Given, Tag

__all__ = ["Given", "Item", "Preflight", "Tag", "preflight"]
