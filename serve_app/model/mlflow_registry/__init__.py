"""MLflow: where models come from, where bundles are published, what training logs. mlflow is imported when it is used.

Nothing is unpickled here. What is fetched is a bundle, verified against the digest that was published, or files for
`serve_app.model.foreign`, which has its own rules.
"""

from serve_app.model.mlflow_registry.fetch import RunFiles, fetch, fetch_model, fetch_run
from serve_app.model.mlflow_registry.publish import Published, publish_bundle
from serve_app.model.mlflow_registry.store import DEFAULT_STORE
from serve_app.model.mlflow_registry.tracking import TrackedRun, tracked_run

__all__ = [
    "DEFAULT_STORE",
    "Published",
    "RunFiles",
    "TrackedRun",
    "fetch",
    "fetch_model",
    "fetch_run",
    "publish_bundle",
    "tracked_run",
]
