"""What Ray Serve may change of a router that serves."""

from types import SimpleNamespace

import pytest
from ray import serve

from deployments.bundles import Shelf
from deployments.keys import Keys
from deployments.router import RouterDeployment
from serve_app.config import AppConfig, Topology
from serve_app.errors import ConfigError
from serve_app.model import Bundle
from serve_app.router.releases import Release
from tests.factories import PRODUCTION
from tests.unit.monitor.answers import NOW

MISSPELT = {"batching": {"max_batch_sise": 128}}


@pytest.fixture
def router(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> RouterDeployment:
    context = SimpleNamespace(app_name="signals", replica_tag="router-a")
    monkeypatch.setattr(serve, "get_replica_context", lambda: context)
    monkeypatch.setattr("deployments.router._spare_the_collector", lambda: None)
    config = AppConfig.model_validate(
        {"topology": Topology.FUSED, "variants": {"production": {"bundle": str(PRODUCTION)}}}
    )
    return RouterDeployment(config, Shelf.of(str(PRODUCTION)), Release(production=bundle.digest), Keys(), NOW)


def test_what_is_wrong_with_the_first_configuration_keeps_a_router_from_serving(router: RouterDeployment) -> None:
    with pytest.raises(ConfigError, match="max_batch_sise"):
        router.reconfigure(MISSPELT)


def test_a_router_that_serves_goes_on_with_what_it_had(
    router: RouterDeployment, caplog: pytest.LogCaptureFixture
) -> None:
    router.reconfigure({"batching": {"max_batch_size": 32}})
    router.check_health()
    router.reconfigure(MISSPELT)
    assert "max_batch_sise" in caplog.text
    assert {made.batcher.limits.max_batch_size for made in router._lanes._current.values()} == {32}
