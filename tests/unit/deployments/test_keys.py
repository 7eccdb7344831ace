"""Keys come from the environment, and a graph that needs some is not built without."""

import pytest

from deployments.graph import build_app
from deployments.keys import API_KEYS, WEBHOOK_SECRET, Keys, keys_of
from serve_app.api import CONTROL_KEY, hash_key
from serve_app.config import AppConfig, Auth
from serve_app.errors import ConfigError
from tests.factories import PRODUCTION

OURS = {API_KEYS: " a , b,, ", CONTROL_KEY: " c ", WEBHOOK_SECRET: "s"}


def test_keys_are_kept_as_hashes_and_the_secret_is_not_shown() -> None:
    keys = keys_of(Auth.API_KEYS, OURS)
    assert keys == Keys((hash_key("a"), hash_key("b")), hash_key("c"), "s")
    assert "'s'" not in repr(keys)


def test_where_everybody_may_ask_no_key_is_asked_for() -> None:
    assert keys_of(Auth.NONE, OURS).asking == ()
    assert keys_of(Auth.NONE, {}) == Keys()


@pytest.mark.parametrize("secret", ["whsec_abc", "whsec_!aGVsbG8="])
def test_a_secret_that_signs_nothing_is_refused_before_anything_starts(secret: str) -> None:
    with pytest.raises(ConfigError, match="is not base64 after it") as refused:
        keys_of(Auth.NONE, {WEBHOOK_SECRET: secret})
    assert secret not in str(refused.value)


@pytest.mark.parametrize("given", ["", " , "])
def test_a_graph_that_needs_keys_is_not_built_without(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(API_KEYS, given)
    variants = {"production": {"bundle": str(PRODUCTION)}}
    config = AppConfig.model_validate({"topology": "fused", "variants": variants, "router": {"auth": "api_keys"}})
    with pytest.raises(ConfigError, match=f"{API_KEYS} is empty"):
        build_app(config)
