"""How many replicas each stage has, as the dashboard shows it."""

from typing import Any

import pytest
from ray import serve
from ray.serve._private.common import DeploymentStatus
from ray.serve.schema import ApplicationStatusOverview, DeploymentStatusOverview, ServeStatus

from deployments.replicas import replicas, stages
from serve_app.types import VariantName

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE


def deployment(status: str, **states: int) -> dict[str, Any]:
    return {
        "status": DeploymentStatus(status),
        "status_trigger": "CONFIG_UPDATE_COMPLETED",
        "replica_states": states,
        "message": "",
    }


def application(**deployments: dict[str, Any]) -> dict[str, Any]:
    return {"status": "RUNNING", "message": "", "last_deployed_time_s": 0.0, "deployments": deployments}


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The applications of a cluster, as Ray Serve would tell of them."""
    applications: dict[str, Any] = {}

    def status() -> ServeStatus:
        told = {
            name: ApplicationStatusOverview(
                **{**one, "deployments": {n: DeploymentStatusOverview(**d) for n, d in one["deployments"].items()}}
            )
            for name, one in applications.items()
        }
        return ServeStatus(applications=told)

    monkeypatch.setattr(serve, "status", status)
    return applications


def test_each_stage_has_its_replicas_and_each_variant_the_model_that_holds_it(cluster: dict[str, Any]) -> None:
    cluster["signals"] = application(router=deployment("UPDATING", RUNNING=1, STARTING=1))
    cluster["model-production"] = application(model=deployment("HEALTHY", RUNNING=3))
    cluster["model-candidate"] = application(model=deployment("UNHEALTHY"))
    cluster["something-else"] = application(router=deployment("HEALTHY", RUNNING=9))
    moved = {PRODUCTION: CANDIDATE, CANDIDATE: PRODUCTION}  # after a promotion
    assert stages(replicas(), "signals", moved) == {
        "router": {"running": 1, "replicas": 2, "status": "UPDATING"},
        "models": {
            "production": {"running": 0, "replicas": 0, "status": "UNHEALTHY"},
            "candidate": {"running": 3, "replicas": 3, "status": "HEALTHY"},
        },
    }


def test_what_runs_inside_the_router_is_not_named(cluster: dict[str, Any]) -> None:
    cluster["signals"] = application(router=deployment("HEALTHY", RUNNING=2))
    found = stages(replicas(), "signals", {PRODUCTION: PRODUCTION})
    assert found == {"router": {"running": 2, "replicas": 2, "status": "HEALTHY"}, "models": {}}


def test_a_controller_that_knows_nothing_yet_is_nothing_to_show(cluster: dict[str, Any]) -> None:
    assert not cluster
    assert stages(replicas(), "signals", {PRODUCTION: PRODUCTION}) == {"models": {}}
