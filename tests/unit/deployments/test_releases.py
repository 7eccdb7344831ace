"""How a router follows the ledger."""

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest

from deployments.lanes import Lanes
from deployments.releases import Follower
from serve_app.errors import BundleNotFound, JournalUnavailable, ReleaseRefused, StageUnavailable
from serve_app.pipeline import Pipeline
from serve_app.router.changes import promoted, replaced, split
from serve_app.router.releases import Author, Ledger, Release, Step
from serve_app.service import Lane
from serve_app.types import Thresholds, VariantName
from tests.factories import Failing, with_stages
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
        self.pipelines = {pipeline.bundle.digest: pipeline for pipeline in pipelines}

    def names(self) -> dict[str, str]:
        return {digest: pipeline.bundle.version for digest, pipeline in self.pipelines.items()}

    def symbols(self) -> set[str]:
        return {symbol for pipeline in self.pipelines.values() for symbol in pipeline.bundle.symbol_to_id}

    async def named(self, version: str) -> str:
        for digest, name in self.names().items():
            if name == version:
                return digest
        raise BundleNotFound(f"there is no {version}")

    async def pipeline(self, digest: str, _: Thresholds | None) -> Pipeline:
        return self.pipelines[digest]

    def of(self, release: Release, slots: Mapping[str, VariantName]) -> dict[VariantName, Lane]:
        assert set(slots) == set(release.digests().values())
        pipelines = {name: self.pipelines[digest] for name, digest in release.digests().items()}
        return {name: Lane(pipeline, pipeline.run) for name, pipeline in pipelines.items()}

    async def load(self, digests: Iterable[str], slots: Mapping[str, VariantName]) -> None:
        assert set(digests) <= set(self.pipelines)
        assert set(digests) <= set(slots)


@pytest.fixture
def two(pipeline: Pipeline, candidate: Pipeline) -> TwoLanes:
    return TwoLanes(pipeline, candidate)


@pytest.fixture
def lanes(two: TwoLanes) -> Lanes:
    return cast("Lanes", two)


@pytest.fixture
def lines() -> Away:
    return Away()


def follower_of(lines: Memory, lanes: Lanes, **fields: Any) -> Follower:
    old, new = cast("TwoLanes", lanes).pipelines
    release = Release.model_validate({"production": old, "candidate": new, **fields})
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


def test_its_control_knows_every_symbol_and_version(lines: Away, lanes: Lanes, two: TwoLanes) -> None:
    control = follower_of(lines, lanes).control()
    (shown,) = asyncio.run(control.history())
    assert shown["versions"] == {"production": "v1.0", "candidate": "v1.1"}
    moves = asyncio.run(control.preview(split(1.0, None, None), None))
    assert {move["symbol"] for move in moves} == two.symbols()


def test_a_candidate_is_loaded_and_proven_before_the_ledger_names_it(
    lines: Away, two: TwoLanes, candidate: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = follower_of(lines, cast("Lanes", two), candidate=None)
    control = follower.control()
    unable = with_stages(candidate, model=Failing(StageUnavailable("model-candidate does not answer")).run)
    monkeypatch.setitem(two.pipelines, candidate.bundle.digest, unable)
    for version, reason in (("v1.1", "model-candidate does not answer"), ("v9.9", "there is no v9.9")):
        with pytest.raises(ReleaseRefused, match=f"{version} is not the candidate: {reason}"):
            asyncio.run(control.candidate(version, "ada", "because"))
    assert [(e.step, e.epoch) for e in Ledger(lines).entries()] == [("seed", 1), ("failed", 1), ("failed", 1)]
    monkeypatch.setitem(two.pipelines, candidate.bundle.digest, candidate)
    asyncio.run(control.candidate("v1.1", "ada", "because"))
    assert Ledger(lines).entries()[-1].release.candidate == candidate.bundle.digest
    assert follower.current.readiness() == {"production": None, "candidate": None}


def test_a_bundle_that_this_router_alone_cannot_load_leaves_it_in_its_epoch(
    lines: Away, lanes: Lanes, two: TwoLanes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    follower = follower_of(lines, lanes, candidate=None)
    Ledger(lines).change(Step.CANDIDATE, replaced(list(two.pipelines)[1]), ADA)
    unable = AsyncMock(side_effect=RuntimeError("no memory"))

    async def watched() -> None:
        following = asyncio.create_task(follower.follow_forever())
        monkeypatch.setattr(two, "load", unable)
        while unable.await_count < 3:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.001)
        assert versions(follower) == (1, "v1.0")
        monkeypatch.undo()
        while versions(follower)[0] == 1:  # noqa: ASYNC110  see above
            await asyncio.sleep(0.001)
        following.cancel()

    asyncio.run(asyncio.wait_for(watched(), 30))
    assert "epoch 1 stays in force" in caplog.text
