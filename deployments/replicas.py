"""How many replicas each stage has, from Ray Serve's controller."""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.schema import DeploymentStatusOverview

from deployments.stages import MODEL, model_application
from serve_app.types import VariantName

RUNNING = "RUNNING"
Replicas = dict[str, dict[str, dict[str, Any]]]
"""By application and deployment: those that run, all that there are, and what Serve says of them."""


def replicas() -> Replicas:
    """Ask the controller. It takes some 80 ms of Python: too much for a process that answers requests."""
    return {
        name: {deployment: _counted(one) for deployment, one in application.deployments.items()}
        for name, application in serve.status().applications.items()
    }


def _counted(deployment: DeploymentStatusOverview) -> dict[str, Any]:
    states = deployment.replica_states
    return {
        "running": sum(n for state, n in states.items() if state == RUNNING),
        "replicas": sum(states.values()),
        "status": deployment.status.value,
    }


def stages(found: Replicas, application: str, places: Mapping[VariantName, VariantName]) -> dict[str, Any]:
    """Return the replicas of the stages of an application, and of the model of each variant.

    `places`: in which application each variant's model is, see `serve_app.router.slots`. A stage that is missing runs
    inside the router.
    """
    where = {str(name): found.get(model_application(slot), {}) for name, slot in places.items()}
    models = {name: deployments[MODEL] for name, deployments in where.items() if MODEL in deployments}
    return {**found.get(application, {}), "models": models}
