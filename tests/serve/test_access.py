"""Who may ask, where keys are needed; and that what came out is counted."""

import httpx2
import pytest

from serve_app.types import Bars
from tests.serve.requests import every_form, window


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


def test_the_monitor_counts_every_answer_of_every_router(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    def production() -> dict[str, int]:
        counted: dict[str, int] = client.get(graphs["fused"] + "/v1/monitor").json()["variants"]["production"]
        return counted

    path, body = every_form("IBM", window(bars["IBM"]))["columns"]
    client.post(graphs["fused"] + path, json=body)
    before = production()
    for topology in ("staged", "model_remote", "fused"):
        client.post(graphs[topology] + path, json=body)
        client.get(graphs[topology] + "/v1/monitor")  # a router pushes what it has before it asks
    after = production()
    assert after["requests"] - before["requests"] == 3
    assert set(after["stages_ms"]) == {"queue", "preprocess", "model", "strategy"}
