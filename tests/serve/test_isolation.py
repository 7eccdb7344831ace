"""One bad row, one impatient caller or one dead replica harms nobody else."""

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx2
import pytest

from deployments import processes
from serve_app.types import Bars
from tests.factories import window
from tests.replicas import replicas
from tests.serve.conftest import DEADLY, POISON, SLOW
from tests.serve.requests import with_sentiment
from tests.waiting import wait_for

FINE = 0.5


def bodies(bars: dict[str, Bars], n: int, sentiment: float = FINE) -> list[dict[str, Any]]:
    """About n different bars, all symbols among them."""
    symbols = ("AAPL", "GOOG", "IBM", "MSFT")
    return [
        with_sentiment(s, window(bars[s], ago=i // 4), sentiment) for i, s in zip(range(n), symbols * n, strict=False)
    ]


def all_at_once(url: str, requests: list[dict[str, Any]]) -> list[httpx2.Response]:
    async def ask() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(timeout=60) as http:
            return await asyncio.gather(*(http.post(url + "/v1/signals", json=body) for body in requests))

    return asyncio.run(ask())


def batch(client: httpx2.Client, url: str, requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    response = client.post(url + "/v1/signals:batch", json={"requests": requests})
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    return results


@pytest.mark.parametrize("where", [0, 31, 63])
def test_a_malformed_row_in_a_batch_of_64_fails_alone(
    where: int, graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    good = bodies(bars, 64)
    expected = batch(client, graphs["staged"], good)
    good[where] = {"symbol": "AAPL", "bars": {"timestamp": ["yesterday"], "open": [1]}}
    results = batch(client, graphs["staged"], good)
    assert results[where]["code"] == "wrong_type"
    assert "2013-03-01T00:00:00Z" in results[where]["error"]
    for i in set(range(64)) - {where}:
        assert results[i]["prediction_probability"] == pytest.approx(expected[i]["prediction_probability"], abs=1e-6)


@pytest.mark.parametrize("where", [0, 31, 63])
def test_a_row_that_makes_the_model_raise_fails_alone(
    where: int, graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    rows = bodies(bars, 64)
    expected = batch(client, graphs["faulty"], rows)
    rows[where] = bodies(bars, 64, POISON)[where]
    results = batch(client, graphs["faulty"], rows)
    bad = results[where]
    assert (bad["status"], bad["reason"], bad["prediction_probability"]) == ("abstain", "model_unavailable", None)
    assert bad["recommended_action"] == "HOLD"
    for i in set(range(64)) - {where}:
        assert results[i]["status"] == "ok"
        assert results[i]["prediction_probability"] == pytest.approx(expected[i]["prediction_probability"], abs=1e-6)


def test_64_concurrent_requests_reach_the_model_as_few_batches(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    def sizes() -> dict[int, int]:
        variants = client.get(graphs["faulty"] + "/v1/monitor").json()["variants"]
        counted = variants.get("candidate", {}).get("rows_by_batch_size", {})
        return {int(size): rows for size, rows in counted.items()}

    before = sizes()
    answers = all_at_once(graphs["faulty"], bodies(bars, 64, SLOW))
    assert [answer.status_code for answer in answers] == [200] * 64
    after = sizes()
    rows = {size: after[size] - before.get(size, 0) for size in after if after[size] != before.get(size, 0)}
    batches = {size: n // size for size, n in rows.items()}
    print(f"batch size → batches: {batches}")
    assert sum(rows.values()) == 64
    # The model takes 0.3 s a batch: what arrives meanwhile leaves together.
    assert sum(batches.values()) <= 8


def test_callers_who_leave_while_their_batch_is_in_the_model_disturb_nobody(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars], notes: Path
) -> None:
    rows = bodies(bars, 8, SLOW)
    expected = [r["prediction_probability"] for r in batch(client, graphs["faulty"], rows)]
    slow_batches = notes / "slow"

    async def ask() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(timeout=60) as http:
            before = len(slow_batches.read_text())
            quitters = [send_and_do_not_wait(graphs["faulty"], row) for row in rows]
            calls = [asyncio.create_task(http.post(graphs["faulty"] + "/v1/signals", json=row)) for row in rows]
            await asyncio.to_thread(
                wait_for, lambda: len(slow_batches.read_text()) > before, 30, lambda: "no batch reached the model"
            )
            for quitter in quitters:
                quitter.close()
            return await asyncio.gather(*calls)

    for _ in range(4):
        answers = asyncio.run(ask())
        assert [answer.status_code for answer in answers] == [200] * 8
        got = [answer.json()["prediction_probability"] for answer in answers]
        assert got == pytest.approx(expected, abs=1e-6)


def send_and_do_not_wait(url: str, body: dict[str, Any]) -> socket.socket:
    parts, content = urlsplit(url), json.dumps(body).encode()
    caller = socket.create_connection((parts.hostname or "", parts.port or 0))
    head = f"POST {parts.path}/v1/signals HTTP/1.1\r\nHost: test\r\nContent-Length: {len(content)}\r\n\r\n"
    caller.sendall(head.encode() + content)
    return caller


def test_a_model_that_misses_the_deadline_means_an_abstention(
    graphs: dict[str, str], client: httpx2.Client, bars: dict[str, Bars]
) -> None:
    late = with_sentiment("AAPL", window(bars["AAPL"]), SLOW)
    late["position"] = {"status": "LONG", "time_in_position_bars": 100}
    answer = client.post(graphs["hasty"] + "/v1/signals", json=late).json()
    assert (answer["status"], answer["reason"]) == ("abstain", "deadline")
    # The time exit needs no model.
    assert (answer["prediction_probability"], answer["recommended_action"]) == (None, "SELL")


def test_a_replica_that_dies_with_a_batch_costs_no_answer(graphs: dict[str, str], bars: dict[str, Bars]) -> None:
    run_id, model = os.environ[processes.RUN_ID], "model-candidate:model"
    before = set(replicas(run_id, model))
    answers = all_at_once(graphs["faulty"], bodies(bars, 8, DEADLY))
    assert [answer.json()["status"] for answer in answers] == ["ok"] * 8
    wait_for(lambda: len(before - set(replicas(run_id, model))) == 1, 10, lambda: f"none of {before} has died")
