"""The call that shows a decision of the past, over a journal in a file."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve_app.api import Front, create_api, hash_key
from serve_app.config import JournalConfig, RouterConfig
from serve_app.documentation import Examples, bars_as_columns
from serve_app.journal import Journal
from serve_app.pipeline import Pipeline
from serve_app.router import Assignment
from serve_app.schemas import KeptDecisionBody
from serve_app.service import Lane, SignalService
from serve_app.types import Bars, VariantName
from tests.factories import window

KEY = {"Authorization": "Bearer key"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(JournalConfig(url=f"sqlite:///{tmp_path}/journal.db", spool=str(tmp_path / "spool")))
    yield journal
    journal.close()


@pytest.fixture
def client(pipeline: Pipeline, journal: Journal) -> Iterator[TestClient]:
    async def monitor() -> dict[str, Any]:
        return {}

    lanes = {VariantName.PRODUCTION: Lane(pipeline, pipeline.run)}
    service = SignalService(lanes, Assignment(), keep=journal.keep)
    front = Front(
        service=service,
        config=RouterConfig(),
        feature_list=pipeline.bundle.config.feature_list,
        examples=Examples({}, {}, {}),
        record=lambda *_: None,
        monitor=monitor,
        find=journal.find,
        api_key_hashes=[hash_key("key")],
    )
    with TestClient(create_api(front), headers=KEY) as http:
        assert http.portal is not None
        assert http.portal.call(service.prove)
        yield http


def test_what_was_answered_is_shown_with_what_it_was_made_from(
    client: TestClient, journal: Journal, pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    body = {"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}
    answer = client.post("/v1/signals", json=body).json()
    journal.ship()
    response = client.get(f"/v1/decisions/{answer['decision_id']}")
    assert response.status_code == 200, response.text
    shown = response.json()
    KeptDecisionBody.model_validate(shown)
    timings = shown.pop("timings_ms")
    assert {stage: round(ms, 3) for stage, ms in timings.items()} == answer.pop("timings_ms")
    assert {name: shown[name] for name in answer} == answer
    inputs = shown["inputs"]
    assert np.array(inputs["bars"]).shape == (pipeline.bundle.config.bars_needed, len(pipeline.feature_set.columns))
    assert inputs["timestamps"][-1] == str(bars["IBM"].timestamp[-1]) + "Z"
    assert inputs["features"] is None


def test_who_may_not_ask_may_not_look_and_an_unknown_id_is_told(client: TestClient) -> None:
    assert client.get("/v1/decisions/none", headers={"Authorization": ""}).status_code == 401
    response = client.get("/v1/decisions/none")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_decision")


def test_without_a_disk_no_decision_is_given(
    client: TestClient, bars: dict[str, Bars], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda *_: 0)
    body = {"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}
    response = client.post("/v1/signals", json=body)
    assert (response.status_code, response.json()["code"]) == (503, "spool_unavailable")
    assert response.headers["Retry-After"] == "1"
