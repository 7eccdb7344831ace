"""Who may ask, who may change releases, and what alerts are signed with: from the environment of the application."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from serve_app.api import CONTROL_KEY, hash_key
from serve_app.config import Auth
from serve_app.errors import ConfigError
from serve_app.webhook import key_of

API_KEYS = "SIGNALGRAPH_API_KEYS"
"""The keys that may ask, separated by commas."""

WEBHOOK_SECRET = "SIGNALGRAPH_WEBHOOK_SECRET"  # noqa: S105  its name
"""What alerts to the webhook are signed with."""


@dataclass(frozen=True, slots=True)
class Keys:
    """Hashes of the keys that may ask, and of the one that may change releases; what is signed with which secret."""

    asking: Collection[str] = ()
    control: str | None = None
    """None: nobody may change releases."""
    webhook: str | None = field(default=None, repr=False)
    """The secret that alerts are signed with."""


def keys_of(auth: Auth, environment: Mapping[str, str]) -> Keys:
    """Return the keys of an environment. Raises ConfigError when keys are needed to ask and there are none, and
    for a secret that signs nothing.
    """
    given = [key.strip() for key in environment.get(API_KEYS, "").split(",") if key.strip()]
    if auth is Auth.API_KEYS and not given:
        raise ConfigError(f"router.auth is api_keys, but {API_KEYS} is empty; set it to the keys that may ask")
    asking = tuple(map(hash_key, given)) if auth is Auth.API_KEYS else ()
    control, secret = environment.get(CONTROL_KEY, "").strip(), environment.get(WEBHOOK_SECRET)
    if secret:
        key_of(secret)
    return Keys(asking, hash_key(control) if control else None, secret)
