"""Who may ask, where keys are needed; and that what came out is counted."""

from typing import Any

import httpx2
import pytest

from serve_app.types import Bars
from tests.factories import every_form, window
from tests.serve.conftest import POISON
from tests.serve.requests import with_sentiment


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Basic key-of-desk-a", 401),
        ("Bearer", 401),
        ("Bearer key-of-desk-a, key-of-desk-b", 401),
        ("Bearer key-of-desk-a", 200),
        ("bearer key-of-desk-b", 200),
    ],
)
def test_only_a_known_key_is_answered(
    header: str | None, status: int, graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    headers = {"Authorization": header} if header is not None else {}
    path, body = every_form("AAPL", window(bars["AAPL"]))["columns"]
    response = client.post(graphs["locked"] + path, json=body, headers=headers)
    assert response.status_code == status
    if status == 401:
        assert response.json()["code"] == "unauthorized"
        assert response.headers["WWW-Authenticate"] == "Bearer"
        assert "key-of-desk" not in response.text


def test_health_and_documentation_need_no_key(graphs: dict[str, str], client: httpx2.Client) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"):
        assert client.get(graphs["locked"] + path).status_code == 200, path
    assert client.get(graphs["locked"] + "/openapi.json").json()["security"] == [{"key": []}]
    assert client.get(graphs["locked"] + "/v1/monitor").status_code == 401


def test_the_monitor_counts_every_answer_and_abstentions_apart(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    def counted(graph: str, variant: str) -> dict[str, Any]:
        variants = client.get(graphs[graph] + "/v1/monitor").json()["variants"]
        found: dict[str, Any] = variants.get(variant, {"requests": 0, "actions": {}, "abstentions": {}})
        return found

    path, body = every_form("IBM", window(bars["IBM"]))["columns"]
    before = counted("fused", "production")
    for _ in range(3):
        client.post(graphs["fused"] + path, json=body)
    after = counted("fused", "production")
    assert after["requests"] - before["requests"] == 3
    assert set(after["stages_ms"]) == {"queue", "preprocess", "model", "strategy"}

    before = counted("faulty", "candidate")
    client.post(graphs["faulty"] + "/v1/signals", json=with_sentiment("IBM", window(bars["IBM"]), POISON))
    after = counted("faulty", "candidate")
    assert after["requests"] - before["requests"] == 1
    assert after["actions"] == before["actions"]
    assert after["abstentions"]["model_unavailable"] == before["abstentions"].get("model_unavailable", 0) + 1
