"""Which variant answers a symbol, and in which epoch."""

from serve_app.router.assignment import FIRST_EPOCH, Assignment

__all__ = ["FIRST_EPOCH", "Assignment"]
