"""The call that shows a decision of the past, over a journal in a file."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from serve_app.api import Front, Past, create_api, hash_key
from serve_app.config import JournalConfig, RouterConfig
from serve_app.documentation import Examples, bars_as_columns
from serve_app.errors import BundleNotLoaded
from serve_app.journal import Journal
from serve_app.journal.record import pack, unpack
from serve_app.pipeline import Pipeline
from serve_app.replay import Replayer, replayed
from serve_app.router import Assignment
from serve_app.router.releases import Author, Ledger, Release
from serve_app.schemas import KeptDecisionBody, ReplayBody
from serve_app.schemas.outcomes import OutcomeAnswer, OutcomesAnswer
from serve_app.service import Lane, SignalService
from serve_app.types import Action, Bars, HoldingUnit, SignalRequest, Thresholds, VariantName
from tests.factories import window, with_stages
from tests.unit.decisions import ABSTAINED
from tests.unit.ledgers import Memory

EAGER = Thresholds(signal_threshold=0.0, holding_unit=HoldingUnit.BARS)
KEY = {"Authorization": "Bearer key"}


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(JournalConfig(url=f"sqlite:///{tmp_path}/journal.db", spool=str(tmp_path / "spool")))
    yield journal
    asyncio.run(journal.close())


class Loaded:
    """The bundles of a graph; its stages may be others than those that decided."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipelines = {pipeline.bundle.digest: pipeline}

    async def __call__(self, digest: str, thresholds: Thresholds | None) -> Pipeline:
        if digest not in self.pipelines:
            raise BundleNotLoaded("not loaded")
        loaded = self.pipelines[digest]
        return Pipeline(loaded.bundle, loaded.stages, thresholds=thresholds)


@pytest.fixture
def loaded(pipeline: Pipeline) -> Loaded:
    return Loaded(pipeline)


@pytest.fixture
def client(pipeline: Pipeline, journal: Journal, loaded: Loaded) -> Iterator[TestClient]:
    async def monitor() -> dict[str, Any]:
        return {}

    ledger = Ledger(Memory())
    release = Release(production=pipeline.bundle.digest, thresholds={VariantName.PRODUCTION: EAGER})
    ledger.seed(release, Author("configuration", "first", datetime(2026, 3, 1, tzinfo=UTC)))
    pipeline = Pipeline(pipeline.bundle, pipeline.stages, thresholds=EAGER)
    lanes = {VariantName.PRODUCTION: Lane(pipeline, pipeline.run)}
    service = SignalService(lanes, Assignment(), keep=journal.keep)
    front = Front(
        service=service,
        config=RouterConfig(),
        examples=Examples({}, {}, {}),
        record=lambda *_: None,
        monitor=monitor,
        past=Past(journal.find, Replayer(journal.find, ledger, loaded), journal.report),
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
    assert {name: shown[name] for name in answer} == answer
    inputs = shown["inputs"]
    assert np.array(inputs["bars"]).shape == (pipeline.bundle.config.bars_needed, len(pipeline.feature_set.columns))
    assert inputs["timestamps"][-1] == str(bars["IBM"].timestamp[-1]) + "Z"
    assert inputs["features"] is None


def test_who_may_not_ask_may_not_look_and_an_unknown_id_is_told(client: TestClient) -> None:
    assert client.get("/v1/decisions/none", headers={"Authorization": ""}).status_code == 401
    response = client.get("/v1/decisions/none")
    assert (response.status_code, response.json()["code"]) == (404, "unknown_decision")


@pytest.fixture
def decided(client: TestClient, journal: Journal, bars: dict[str, Bars]) -> str:
    """The id of a decision in the journal."""
    answer = client.post("/v1/signals", json={"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}).json()
    assert answer["recommended_action"] == "BUY"  # by the thresholds of the release
    journal.ship()
    found: str = answer["decision_id"]
    return found


def replay_of(client: TestClient, decision_id: str) -> dict[str, Any]:
    response = client.post(f"/v1/decisions/{decision_id}:replay")
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    ReplayBody.model_validate(document)
    return document


def test_a_decision_is_reproduced_by_its_bundle_and_the_thresholds_of_its_epoch(
    client: TestClient, decided: str
) -> None:
    replay = replay_of(client, decided)
    assert (replay["agrees"], replay["first_difference"]) == (True, None)
    assert {name: replay["recorded"][name] for name in replay["computed"]} == replay["computed"]


@pytest.mark.parametrize("stage", ["preprocess", "model", "strategy"])
def test_the_first_stage_that_differs_is_named(
    client: TestClient, decided: str, pipeline: Pipeline, loaded: Loaded, stage: str
) -> None:
    honest = getattr(pipeline.stages, stage)

    async def other(batch: Any) -> Any:
        given = await honest(batch)
        if stage == "preprocess":
            return replace(given, windows=given.windows + np.float32(0.5))
        if stage == "model":
            return replace(given, probabilities=given.probabilities + 0.001)
        return replace(given, actions=(Action.HOLD,) * len(given))

    loaded.pipelines[pipeline.bundle.digest] = with_stages(pipeline, **{stage: other})
    replay = replay_of(client, decided)
    assert (replay["agrees"], replay["first_difference"]) == (False, stage)


def test_what_abstained_has_nothing_to_compare_and_shows_what_the_model_says_now(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    row = pipeline.row(SignalRequest("IBM", bars["IBM"]))
    replay = asyncio.run(replayed(unpack(pack(ABSTAINED, row, datetime(2026, 3, 1, tzinfo=UTC))), pipeline))
    assert (replay.first_difference, replay.recorded["reason"]) == (None, "deadline")
    assert 0 < replay.computed["probability"] < 1


def test_a_decision_of_a_bundle_that_is_not_loaded_cannot_be_replayed(
    client: TestClient, decided: str, loaded: Loaded
) -> None:
    loaded.pipelines.clear()
    response = client.post(f"/v1/decisions/{decided}:replay")
    assert (response.status_code, response.json()["code"]) == (409, "bundle_not_loaded")
    assert client.post("/v1/decisions/none:replay").status_code == 404


def test_what_came_of_a_decision_is_reported_once(client: TestClient, decided: str) -> None:
    def report(label: Any, decision_id: str = decided) -> tuple[int, str]:
        response = client.post("/v1/outcomes", json={"decision_id": decision_id, "label": label})
        document = response.json()
        if response.status_code == 200:
            OutcomeAnswer.model_validate(document)
        return response.status_code, document.get("report") or document["code"]

    assert report(1) == (200, "recorded")
    assert report(1) == (200, "repeated")
    assert report(0) == (409, "outcome_conflict")
    assert report(1, "none") == (404, "unknown_decision")
    assert report(2) == (400, "malformed")


def test_an_outcome_that_nobody_will_ever_know_is_reported_as_null(client: TestClient, decided: str) -> None:
    for label, status in ((None, 200), (None, 200), (1, 409)):
        response = client.post("/v1/outcomes", json={"decision_id": decided, "label": label})
        assert response.status_code == status, response.text


def test_of_many_reports_each_has_an_answer_of_its_own(client: TestClient, decided: str) -> None:
    given = [{"decision_id": "none", "label": 0}, {"decision_id": decided, "label": 0}]
    response = client.post("/v1/outcomes:batch", json={"outcomes": given})
    assert response.status_code == 200, response.text
    OutcomesAnswer.model_validate(response.json())
    first, second = response.json()["results"]
    assert (first["code"], second) == ("unknown_decision", {"decision_id": decided, "report": "recorded"})
    twice = [{"decision_id": decided, "label": label} for label in (0, 1)]
    response = client.post("/v1/outcomes:batch", json={"outcomes": twice})
    assert (response.status_code, response.json()["code"]) == (400, "malformed")


def test_without_a_disk_no_decision_is_given(
    client: TestClient, bars: dict[str, Bars], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "write", lambda *_: 0)
    body = {"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}
    response = client.post("/v1/signals", json=body)
    assert (response.status_code, response.json()["code"]) == (503, "spool_unavailable")
    assert response.headers["Retry-After"] == "1"
