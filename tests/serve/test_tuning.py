"""What operators turn and read: batching that changes while the graph serves, and the metrics of batches."""

import re
from collections.abc import Callable

import httpx2
import pytest
import ray
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema

from serve_app.config import Topology
from serve_app.types import Bars
from tests.factories import every_form, window
from tests.serve.conftest import PRODUCTION, ROOT, wait_until_ready
from tests.waiting import wait_for

ROWS = 8


def tune(max_batch_size: int) -> None:
    """Deploy the same file with another `user_config` of its router, as `serve deploy` does."""
    tuned = {
        "name": "tuned",
        "route_prefix": "/tuned",
        "import_path": "deployments.graph:build_app",
        "runtime_env": {"env_vars": {"PYTHONPATH": str(ROOT)}},
        "args": {"topology": "fused", "variants": {"production": {"bundle": PRODUCTION, "deadline_ms": 20_000}}},
        "deployments": [{"name": "router", "user_config": {"batching": {"max_batch_size": max_batch_size}}}],
    }
    client = _get_global_client()
    assert client is not None
    client.deploy_apps(ServeDeploySchema.model_validate({"applications": [tuned]}), _blocking=True)


def replicas() -> list[str]:
    """Return the actors of the tuned application; a replica's name is new whenever it is."""
    actors = ray.util.list_named_actors(all_namespaces=True)
    found = sorted(actor["name"] for actor in actors if "tuned#router" in actor["name"])
    assert found
    return found


@pytest.fixture
def sizes(http_port: int, client: httpx2.Client, bars: dict[str, Bars]) -> Callable[[], dict[str, int]]:
    """Ask for ROWS decisions in one call, and return how many rows were in batches of each size so far."""
    url = f"http://127.0.0.1:{http_port}/tuned"
    _, body = every_form("MSFT", window(bars["MSFT"]))["columns"]

    def counted() -> dict[str, int]:
        document = client.get(f"{url}/v1/monitor").json()["variants"]
        found: dict[str, int] = document.get("production", {}).get("rows_by_batch_size", {})
        return found

    def ask() -> dict[str, int]:
        wait_until_ready(f"{url}/v2/health/ready")
        before = sum(counted().values())
        answer = client.post(f"{url}/v1/signals:batch", json={"requests": [body] * ROWS}).json()
        assert [result["status"] for result in answer["results"]] == ["ok"] * ROWS
        wait_for(lambda: sum(counted().values()) == before + ROWS, 20, lambda: str(counted()))
        return counted()

    return ask


def test_batching_changes_while_the_graph_serves(sizes: Callable[[], dict[str, int]]) -> None:
    tune(2)
    assert sizes() == {"2": ROWS}
    before = replicas()
    tune(4)
    assert sizes() == {"2": ROWS, "4": ROWS}
    assert replicas() == before


def test_prometheus_is_told_of_batches_waits_and_hops(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    path, body = every_form("MSFT", window(bars["MSFT"]))["columns"]
    for topology in (Topology.STAGED, Topology.FUSED):
        assert client.post(graphs[topology] + path, json=body).status_code == 200
    (node,) = ray.nodes()  # type: ignore[no-untyped-call]
    url = f"http://127.0.0.1:{node['MetricsExportPort']}/metrics"

    def missing() -> set[str]:
        told = set(re.findall(r"^ray_signalgraph_(\w+)\{", client.get(url).text, re.MULTILINE))
        return {
            *(f"{name}_count" for name in ("batch_rows", "batch_wait_ms", "batch_ms", "hop_rows")),
            "outstanding_rows",
        } - told

    wait_for(lambda: not missing(), 60, lambda: f"Prometheus is not told of {missing()}")
    rows = re.findall(r"^ray_signalgraph_batch_rows_count\{(.*)\}", client.get(url).text, re.MULTILINE)
    assert any('variant="production"' in tags for tags in rows)
    assert not any("MSFT" in tags for tags in rows)
