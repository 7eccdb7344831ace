"""The HTTP front: routes over a `SignalService`, errors as JSON, documentation with examples that work."""

from serve_app.api.create import create_api
from serve_app.api.front import Front, hash_key

__all__ = ["Front", "create_api", "hash_key"]
