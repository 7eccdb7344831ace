"""The calls that show and change releases, over a ledger in memory."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve_app.api import Front, create_api, hash_key
from serve_app.config import RouterConfig
from serve_app.control import Change, Control
from serve_app.documentation import Examples
from serve_app.errors import JournalUnavailable, ParityError
from serve_app.router.changes import replaced
from serve_app.router.releases import Author, Ledger, Release
from serve_app.service import SignalService
from tests.factories import documented
from tests.unit.ledgers import Memory

OLD, NEW, NEXT = (f"sha256:{digit * 64}" for digit in "abc")
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
NOW = datetime(2026, 3, 1, tzinfo=UTC)
KEY, BY = "control-key", {"who": "ada", "why": "because"}


class Caught:
    """How often the router caught up with the ledger."""

    def __init__(self) -> None:
        self.up = 0
        self.error: JournalUnavailable | None = None

    async def catch_up(self) -> None:
        if self.error is not None:
            raise self.error
        self.up += 1


class Known:
    """What a graph knows of two bundles, and of a third that cannot be loaded."""

    def names(self) -> dict[str, str]:
        return {OLD: "v1.0", NEW: "v1.1", NEXT: "v1.2"}

    def symbols(self) -> tuple[str, ...]:
        return SYMBOLS

    async def tried(self, version: str) -> Change:
        if version == "v1.2":
            return replaced(NEXT)
        if version == "v1.1":
            return replaced(NEW)
        raise RuntimeError("/secret/path is no model") if version == "v1.4" else ParityError("golden case 0: the logit")


@pytest.fixture
def caught() -> Caught:
    return Caught()


@pytest.fixture
def front(caught: Caught) -> Front:
    ledger, known = Ledger(Memory()), Known()
    ledger.seed(Release(production=OLD, candidate=NEW), Author("configuration", "first", NOW))

    async def monitor() -> dict[str, Any]:
        return {}

    return Front(
        service=SignalService({}, Release(production=OLD).assigned()),
        config=RouterConfig(),
        examples=Examples({}, {}, {}),
        record=lambda *_: None,
        monitor=monitor,
        control=Control(ledger, known, known.tried, caught.catch_up, lambda: NOW),
        control_key_hash=hash_key(KEY),
    )


@pytest.fixture
def client(front: Front) -> Iterator[TestClient]:
    with TestClient(create_api(front), headers={"Authorization": f"Bearer {KEY}"}) as http:
        yield http


def change(client: TestClient, name: str, **fields: Any) -> Any:
    response = client.post(f"/v1/releases:{name}", json={**BY, **fields})
    assert response.status_code == 200, response.text
    return response.json()


def test_what_is_in_force_is_shown_with_how_it_came_to_be(client: TestClient) -> None:
    shown = client.get("/v1/releases").json()
    assert shown["history"] == [shown["in_force"]]
    assert shown["in_force"]["epoch"] == 1
    assert shown["in_force"]["release"]["production"] == OLD
    assert shown["in_force"]["versions"] == {"production": "v1.0", "candidate": "v1.1"}


def test_the_whole_way_split_promote_rollback(client: TestClient, caught: Caught) -> None:
    assert change(client, "split", candidate_share=1.0)["release"]["assignment"]["candidate_share"] == 1.0
    assert client.get("/v1/releases/assignment?symbol=IBM").json() == {"symbol": "IBM", "variant": "candidate"}
    promoted = change(client, "promote")
    assert (promoted["versions"], promoted["epoch"]) == ({"production": "v1.1", "candidate": "v1.0"}, 3)
    assert client.get("/v1/releases/assignment?symbol=IBM").json()["variant"] == "production"
    back = change(client, "rollback")
    assert (back["versions"]["production"], back["who"], back["why"]) == ("v1.0", "ada", "because")
    assert back["at"] == "2026-03-01T00:00:00Z"
    steps = [entry["step"] for entry in client.get("/v1/releases").json()["history"]]
    assert steps == ["seed", "split", "promote", "rollback"]
    assert caught.up == 3  # whoever made a change meets it in the next request


@pytest.mark.parametrize(
    ("step", "fields"),
    [
        ("split", {"candidate_share": 0.5}),
        ("shadow", {"shadow": True}),
        ("promote", {}),
        ("rollback", {}),
        ("candidate", {"version": "v1.2"}),
    ],
)
def test_a_change_is_of_what_whoever_makes_it_has_seen(client: TestClient, step: str, fields: dict[str, Any]) -> None:
    """A second promotion would undo the first, whoever made that one, or whatever asked twice."""
    change(client, "split", candidate_share=1.0, follows=1)
    before = client.get("/v1/releases").json()["in_force"]
    late = client.post(f"/v1/releases:{step}", json={**BY, **fields, "follows": 1})
    assert (late.status_code, late.json()["code"]) == (409, "release_refused")
    assert late.json()["error"] == "epoch 1 is not in force any more"
    assert client.get("/v1/releases").json()["in_force"] == before
    assert change(client, step, **fields, follows=2)["epoch"] == 3


def test_a_change_that_is_recorded_is_no_failure_when_it_cannot_be_put_into_force_yet(
    client: TestClient, caught: Caught, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(caught, "error", JournalUnavailable("the journal's database does not answer"))
    assert change(client, "promote")["epoch"] == 2
    assert "epoch 2 is recorded and not yet in force here" in caplog.text


def test_another_candidate_answers_nobody_yet(client: TestClient) -> None:
    change(client, "split", candidate_share=1.0, pins={"IBM": "candidate"})
    change(client, "shadow", shadow=True)
    change(client, "thresholds", variant="candidate", thresholds={"signal_threshold": 0.8})
    entry = change(client, "candidate", version="v1.2")
    assert (entry["step"], entry["versions"]) == ("candidate", {"production": "v1.0", "candidate": "v1.2"})
    assignment = entry["release"].pop("assignment")
    assert (assignment["candidate_share"], assignment["pins"]) == (0, {})
    assert entry["release"] == {
        "production": OLD,
        "candidate": NEXT,
        "shadow": False,
        "shadow_share": 1.0,
        "thresholds": {},
        "plan": None,
    }


@pytest.mark.parametrize(
    ("version", "reason"),
    [("v1.3", "golden case 0: the logit"), ("v1.4", "RuntimeError"), ("v1.1", "the candidate already")],
)
def test_what_cannot_be_the_candidate_changes_nothing(client: TestClient, version: str, reason: str) -> None:
    before = client.get("/v1/releases").json()["in_force"]
    response = client.post("/v1/releases:candidate", json={**BY, "version": version})
    assert response.status_code == 409
    assert reason in response.json()["error"]
    history = client.get("/v1/releases").json()["history"]
    assert {entry["epoch"] for entry in history} == {before["epoch"]}
    failures = [entry["error"] for entry in history if entry["step"] == "failed"]
    assert failures == ([] if version == "v1.1" else [f"{version} is not the candidate: {reason}"])
    assert "secret" not in response.text


def test_a_candidate_is_named_by_its_version(client: TestClient) -> None:
    response = client.post("/v1/releases:candidate", json={**BY, "version": "../v1.2"})
    assert response.status_code == 400, response.text


def test_thresholds_come_and_go(client: TestClient) -> None:
    given = change(client, "thresholds", variant="candidate", thresholds={"signal_threshold": 0.8})
    assert given["release"]["thresholds"]["candidate"]["signal_threshold"] == 0.8
    assert change(client, "thresholds", variant="candidate", thresholds=None)["release"]["thresholds"] == {}


def test_a_preview_names_the_symbols_that_would_move_and_changes_nothing(client: TestClient) -> None:
    asked = {"pins": {"IBM": "candidate"}}
    move = {"symbol": "IBM", "from": "production", "to": "candidate"}
    assert client.post("/v1/releases:preview", json=asked).json() == {"moves": [move]}
    assert client.post("/v1/releases:preview", json={**asked, "symbols": ["AAPL"]}).json() == {"moves": []}
    assert client.get("/v1/releases").json()["in_force"]["epoch"] == 1
    everything = client.post("/v1/releases:preview", json={"candidate_share": 1}).json()["moves"]
    assert [one["symbol"] for one in everything] == list(SYMBOLS)


@pytest.mark.parametrize("name", ["split", "thresholds", "promote", "rollback"])
def test_only_the_control_key_changes_anything(front: Front, name: str) -> None:
    for headers, status in (
        ({}, 401),
        ({"Authorization": "Bearer other"}, 401),
        ({"Authorization": f"Basic {KEY}"}, 401),
    ):
        with TestClient(create_api(front), headers=headers) as client:
            assert client.post(f"/v1/releases:{name}", json=BY).status_code == status
            assert client.get("/v1/releases").json()["in_force"]["epoch"] == 1
    with TestClient(create_api(replace(front, control_key_hash=None))) as client:
        refused = client.post(f"/v1/releases:{name}", json=BY)
        assert (refused.status_code, refused.json()["code"]) == (403, "control_off")
        assert "SIGNALGRAPH_CONTROL_KEY" in refused.json()["error"]


def test_the_control_key_is_no_api_key_and_an_api_key_no_control_key(front: Front) -> None:
    locked = replace(front, api_key_hashes=[hash_key("asking")])
    with TestClient(create_api(locked)) as client:
        asking, control = ({"Authorization": f"Bearer {key}"} for key in ("asking", KEY))
        assert client.get("/v1/releases", headers=asking).status_code == 200
        assert client.get("/v1/releases", headers=control).status_code == 401
        assert client.post("/v1/releases:promote", json=BY, headers=asking).status_code == 401
        assert client.post("/v1/releases:promote", json=BY, headers=control).status_code == 200


@pytest.mark.parametrize(
    ("name", "body", "status", "says"),
    [
        ("split", {"candidate_share": 0.1}, 400, "who"),
        ("split", {**BY, "candidate_share": 2}, 400, "less than or equal to 1"),
        ("split", {**BY, "share": 0.1}, 400, "share"),
        ("split", {**BY, "who": "a\nb"}, 409, "one line of readable text"),
        ("shadow", BY, 400, "shadow"),
        ("thresholds", {**BY, "variant": "shadow", "thresholds": None}, 400, "variant"),
        ("rollback", BY, 409, "nothing to roll back"),
        ("promote", [], 400, "must be a JSON object"),
        ("preview", {"candidate_share": -1}, 400, "greater than or equal to 0"),
    ],
)
def test_what_cannot_be_is_refused_and_said(client: TestClient, name: str, body: Any, status: int, says: str) -> None:
    refused = client.post(f"/v1/releases:{name}", json=body)
    assert refused.status_code == status
    assert says in refused.json()["error"]
    assert client.get("/v1/releases").json()["in_force"]["epoch"] == 1


def test_which_symbol_must_be_said(client: TestClient) -> None:
    assert client.get("/v1/releases/assignment").status_code == 400


def test_without_a_ledger_there_are_no_such_calls(front: Front) -> None:
    with TestClient(create_api(replace(front, control=None))) as client:
        assert client.get("/v1/releases").status_code == 404


def test_the_documented_examples_can_be_sent_as_they_stand(client: TestClient) -> None:
    examples = [one for one in documented(client.get("/openapi.json").json()) if one[0].startswith("/v1/releases")]
    assert len(examples) == 7
    for path, name, example in examples:
        response = client.post(path, json=example)
        assert response.status_code == 200, (path, name, response.text)
