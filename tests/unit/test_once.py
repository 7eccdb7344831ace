"""Requests under an idempotency key, asked of two routers that share a database."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from serve_app.api import Front, create_api
from serve_app.config import JournalConfig, RouterConfig
from serve_app.documentation import Examples, bars_as_columns
from serve_app.journal import Journal
from serve_app.journal.schema import metadata
from serve_app.once import PATIENCE_S, Once, identity_of
from serve_app.pipeline import Pipeline
from serve_app.router import Assignment
from serve_app.service import CurrentService, Lane, Refused, SignalService
from serve_app.types import Bars, Decision, Position, PositionStatus, SignalRequest, VariantName
from tests.factories import window
from tests.unit.hurried import Hurried

LONG = {"status": "LONG", "time_in_position_bars": 8}


class Router:
    """A service of its own epoch, with a spool of its own."""

    def __init__(self, pipeline: Pipeline, folder: Path, epoch: int) -> None:
        self.journal = Journal(JournalConfig(url=f"sqlite:///{folder}/journal.db", spool=str(folder / "spool")))
        lanes = {VariantName.PRODUCTION: Lane(pipeline, pipeline.run)}
        self.service = CurrentService(SignalService(lanes, Assignment(), epoch, self.journal.keep))
        assert asyncio.run(self.service.prove())
        self.once = Once(self.service, self.journal, patience_s=60)  # a busy machine has the database wait

    def decide(self, identity: str, *requests: SignalRequest | Refused) -> list[Any]:
        return asyncio.run(self.once.decide(identity, requests))


@pytest.fixture
def routers(pipeline: Pipeline, tmp_path: Path) -> Iterator[list[Router]]:
    both = [Router(pipeline, tmp_path, epoch) for epoch in (1, 2)]
    yield both
    for router in both:
        asyncio.run(router.journal.close())


@pytest.fixture
def asked(bars: dict[str, Bars]) -> SignalRequest:
    return SignalRequest("IBM", window(bars["IBM"]))


@pytest.fixture
def body(bars: dict[str, Bars]) -> dict[str, Any]:
    return {"symbol": "IBM", "bars": bars_as_columns(window(bars["IBM"]))}


def test_any_router_gives_the_first_decision_again(routers: list[Router], asked: SignalRequest) -> None:
    first, second = routers
    (answer,) = first.decide("key", asked)
    assert answer.epoch == 1
    assert second.decide("key", asked) == [answer]
    assert second.decide("another key", asked)[0].epoch == 2


def test_of_two_that_are_asked_at_once_both_say_the_same(routers: list[Router], asked: SignalRequest) -> None:
    async def both() -> list[list[Any]]:
        return await asyncio.gather(*(router.once.decide("key", [asked]) for router in routers))

    (one,), (other,) = asyncio.run(both())
    assert one == other


def test_in_a_batch_what_was_refused_is_tried_again_and_the_rest_is_what_it_was(
    routers: list[Router], asked: SignalRequest
) -> None:
    first, second = routers
    requests = [asked, replace(asked, symbol="NONE"), asked]
    before, after = first.decide("key", *requests), second.decide("key", *requests)
    assert [isinstance(answer, Decision) for answer in before] == [True, False, True]
    assert (after[0], after[2]) == (before[0], before[2])
    assert after[1].error.code == "unknown_symbol"


def test_a_key_that_was_used_for_another_request_is_refused(routers: list[Router], asked: SignalRequest) -> None:
    first, _ = routers
    first.decide("key", asked)
    long = Position(PositionStatus.LONG, time_in_position_bars=1000)
    (refused,) = first.decide("key", replace(asked, symbol="AAPL", position=long))
    assert refused.error.code == "idempotency_conflict"
    assert refused.error.detail["fallback_action"] == "SELL"


def test_a_key_of_somebody_without_a_position_answers_nobody_who_has_one(
    routers: list[Router], asked: SignalRequest
) -> None:
    """HOLD for one is HOLD for nobody else: it would keep an overdue position."""
    first, second = routers
    held = [Position(PositionStatus.LONG, time_in_position_bars=bars) for bars in (1, 2, 1000)]
    first.decide("key", asked)
    (refused,) = second.decide("key", replace(asked, position=held[2]))
    assert refused.error.code == "idempotency_conflict"
    assert (" FLAT;" in str(refused.error), refused.error.detail["fallback_action"]) == (True, "SELL")
    (answer,) = first.decide("another", replace(asked, position=held[0]))
    assert second.decide("another", replace(asked, position=held[1])) == [answer]


def test_while_the_database_is_away_nobody_can_know_and_afterwards_the_key_is_as_good(
    routers: list[Router], asked: SignalRequest
) -> None:
    first, second = routers
    (tables, engine) = (metadata.tables["decisions"], first.journal.engine)
    tables.drop(engine)
    with pytest.raises(Exception, match="does not answer"):
        first.decide("key", asked)
    tables.create(engine)
    assert first.decide("key", asked)[0].epoch == second.decide("key", asked)[0].epoch == 1


def test_nobody_waits_long_for_a_database_that_says_nothing(
    routers: list[Router], asked: SignalRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait have places of the router, which others want."""
    first, _ = routers
    once = Once(first.service, first.journal)

    async def silent(*_: object) -> None:
        await asyncio.Event().wait()

    async def ask() -> tuple[float, list[str]]:
        found = await asyncio.gather(*(once.decide(f"key {i}", [asked]) for i in range(50)), return_exceptions=True)
        return asyncio.get_running_loop().time(), [str(error) for error in found]

    for method in ("found", "shipped"):
        with monkeypatch.context() as patch:
            patch.setattr(first.journal, method, silent)
            if method == "shipped":
                patch.setattr(first.journal, "found", nothing)
            with asyncio.Runner(loop_factory=Hurried) as runner:
                took, said = runner.run(ask())
        assert took == PATIENCE_S
        assert said == ["the journal's database has not answered for 2 s"] * 50


async def nothing(_: object) -> dict[str, Any]:
    return {}


def test_clients_do_not_share_keys() -> None:
    assert len({identity_of(*pair) for pair in (("a", "bc"), ("ab", "c"), ("", "abc"), ("a", "b"))}) == 4


def client_of(router: Router, once: Once | None) -> TestClient:
    async def monitor() -> dict[str, Any]:
        return {}

    front = Front(
        service=router.service,
        config=RouterConfig(),
        examples=Examples({}, {}, {}),
        record=lambda *_: None,
        monitor=monitor,
        once=once,
    )
    return TestClient(create_api(front))


@pytest.mark.parametrize("path", ["/v1/signals", "/v1/signals:batch"])
def test_over_http_the_answer_is_the_same_to_the_byte(routers: list[Router], body: dict[str, Any], path: str) -> None:
    asked, key = body if path == "/v1/signals" else {"requests": [body, body]}, {"Idempotency-Key": "a-1"}
    answers = []
    for router in routers:
        with client_of(router, router.once) as client:
            answers += [client.post(path, json=asked, headers=key) for _ in range(2)]
            assert client.post(path, json=asked).content != answers[0].content
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1


def test_a_key_that_cannot_be_is_told(routers: list[Router], body: dict[str, Any]) -> None:
    with client_of(routers[0], routers[0].once) as client:
        response = client.post("/v1/signals", json=body, headers={"Idempotency-Key": "two words"})
        assert (response.status_code, response.json()["code"]) == (400, "malformed")
    with client_of(routers[0], None) as client:
        response = client.post("/v1/signals", json=body, headers={"Idempotency-Key": "a"})
        assert response.status_code == 400
        assert "without a journal" in response.json()["error"]


def test_when_nothing_can_be_kept_each_request_is_told_what_its_position_needs(
    routers: list[Router], body: dict[str, Any]
) -> None:
    overdue, key = {**body, "position": LONG}, {"Idempotency-Key": "a-2"}
    metadata.tables["decisions"].drop(routers[0].journal.engine)
    with client_of(routers[0], routers[0].once) as client:
        alone = client.post("/v1/signals", json=overdue, headers=key)
        together = client.post("/v1/signals:batch", json={"requests": [overdue, body, {}]}, headers=key)
    metadata.tables["decisions"].create(routers[0].journal.engine)
    with client_of(routers[0], None) as client:
        forgetful = client.post("/v1/signals", json=overdue, headers=key)
    assert (alone.status_code, alone.json()["code"]) == (503, "journal_unavailable")
    assert alone.headers["Retry-After"] == "1"
    assert alone.json()["detail"]["fallback_action"] == "SELL"
    told = [(one["code"], one["detail"]["fallback_action"]) for one in together.json()["results"]]
    assert told == [("journal_unavailable", "SELL"), ("journal_unavailable", "HOLD"), ("malformed", "HOLD")]
    assert (forgetful.status_code, forgetful.json()["detail"]["fallback_action"]) == (400, "SELL")
