"""How a router follows the ledger."""

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from deployments.lanes import Lanes
from deployments.releases import Follower
from serve_app.errors import JournalUnavailable
from serve_app.pipeline import Pipeline
from serve_app.router.releases import Author, Ledger, Release, Step, promoted, split
from serve_app.service import Lane
from serve_app.types import VariantName
from tests.unit.ledgers import Memory

ADA = Author("ada", "because", datetime(2026, 3, 1, tzinfo=UTC))


class Away(Memory):
    """Lines in a database that may be away."""

    away = False

    def newest(self) -> int:
        if self.away:
            raise JournalUnavailable("the journal's database does not answer (OperationalError)")
        return super().newest()


class TwoLanes:
    """The lanes of two pipelines, without Ray."""

    def __init__(self, *pipelines: Pipeline) -> None:
        self.bundles = {pipeline.bundle.digest: pipeline.bundle for pipeline in pipelines}
        self._pipelines = {pipeline.bundle.digest: pipeline for pipeline in pipelines}

    def of(self, release: Release) -> dict[VariantName, Lane]:
        digests = {VariantName.PRODUCTION: release.production, VariantName.CANDIDATE: release.candidate}
        pipelines = {name: self._pipelines[digest] for name, digest in digests.items() if digest}
        return {name: Lane(pipeline, pipeline.run) for name, pipeline in pipelines.items()}


@pytest.fixture
def lanes(pipeline: Pipeline, candidate: Pipeline) -> Lanes:
    return cast("Lanes", TwoLanes(pipeline, candidate))


@pytest.fixture
def lines() -> Away:
    return Away()


def follower_of(lines: Memory, lanes: Lanes, **fields: Any) -> Follower:
    old, new = lanes.bundles
    release = Release(production=old, candidate=new, **fields)
    return Follower(Ledger(lines), lanes, release, 0.001, lambda _: None, lambda _: None)


def versions(follower: Follower) -> tuple[int, str]:
    service = follower.current.now
    return service.epoch, service.production.bundle.version


def test_the_first_router_seeds_the_ledger_and_the_next_one_follows_it(lines: Away, lanes: Lanes) -> None:
    first = follower_of(lines, lanes)
    Ledger(lines).change(Step.PROMOTE, promoted, ADA)
    assert versions(first) == (1, "v1.0")
    assert versions(follower_of(lines, lanes)) == (2, "v1.1")
    asyncio.run(first.catch_up())
    assert versions(first) == (2, "v1.1")


def test_a_failure_that_is_recorded_switches_nothing(lines: Away, lanes: Lanes) -> None:
    follower = follower_of(lines, lanes)
    service = follower.current.now
    Ledger(lines).fail("BundleCorrupt", ADA)
    asyncio.run(follower.catch_up())
    assert follower.current.now is service


def test_a_release_is_proven_before_it_answers(lines: Away, lanes: Lanes) -> None:
    follower = follower_of(lines, lanes)
    Ledger(lines).change(Step.SPLIT, split(0.5, None, None), ADA)
    asyncio.run(follower.catch_up())
    assert set(follower.current.readiness().values()) == {None}


def test_while_the_database_is_away_the_epoch_stays_and_afterwards_it_follows(
    lines: Away, lanes: Lanes, caplog: pytest.LogCaptureFixture
) -> None:
    async def watched() -> None:
        follower = follower_of(lines, lanes)
        following = asyncio.create_task(follower.follow_forever())
        Ledger(lines).change(Step.PROMOTE, promoted, ADA)
        lines.away = True
        while "stays in force" not in caplog.text:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.001)
        assert versions(follower) == (1, "v1.0")
        lines.away = False
        while versions(follower) != (2, "v1.1"):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        following.cancel()

    with caplog.at_level(logging.WARNING):
        asyncio.run(asyncio.wait_for(watched(), 30))


def test_its_control_knows_every_symbol_and_version(lines: Away, lanes: Lanes) -> None:
    control = follower_of(lines, lanes).control()
    (shown,) = asyncio.run(control.history())
    assert shown["versions"] == {"production": "v1.0", "candidate": "v1.1"}
    moves = asyncio.run(control.preview(split(1.0, None, None), None))
    assert {move["symbol"] for move in moves} == {symbol for b in lanes.bundles.values() for symbol in b.symbol_to_id}
