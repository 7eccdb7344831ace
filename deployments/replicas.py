"""How many replicas each stage has, from Ray Serve's controller."""

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.schema import DeploymentStatusOverview

from deployments.stages import MODEL, model_application
from serve_app.types import VariantName

RUNNING = "RUNNING"


def replicas(application: str, places: Mapping[VariantName, VariantName]) -> dict[str, Any]:
    """Return the replicas of an application's stages, those that run and all, and of the model of each variant.

    `places`: in which application each variant's model is, see `serve_app.router.slots`. A stage that is missing runs
    inside the router. It asks the controller, and takes its time.
    """
    found = serve.status().applications
    own = found[application].deployments if application in found else {}
    models = {
        str(name): _counted(found[where].deployments[MODEL])
        for name, where in ((name, model_application(slot)) for name, slot in places.items())
        if where in found and MODEL in found[where].deployments
    }
    return {**{name: _counted(deployment) for name, deployment in own.items()}, "models": models}


def _counted(deployment: DeploymentStatusOverview) -> dict[str, Any]:
    states = {str(getattr(state, "value", state)): n for state, n in deployment.replica_states.items()}
    return {
        "running": states.get(RUNNING, 0),
        "replicas": sum(states.values()),
        "status": str(getattr(deployment.status, "value", deployment.status)),
    }
