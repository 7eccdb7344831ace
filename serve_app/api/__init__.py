"""The HTTP front: routes over a `SignalService`, errors as JSON, documentation with examples that work."""

from serve_app.api.create import create_api
from serve_app.api.decisions import Past
from serve_app.api.front import Call, Front, hash_key
from serve_app.api.releases import CONTROL_KEY

__all__ = ["CONTROL_KEY", "Call", "Front", "Past", "create_api", "hash_key"]
