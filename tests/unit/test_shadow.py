"""What the other variant would have decided: beside every answer, in the way of none."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
import orjson
import pytest

from serve_app.errors import SpoolUnavailable
from serve_app.identity import by_request, decision_id
from serve_app.pipeline import Pipeline
from serve_app.preprocess import TECH23
from serve_app.router import Assignment
from serve_app.schemas import Limits, decode_signal, parse_arrow, parse_json, parse_signal
from serve_app.service import Lane, SignalService
from serve_app.shadow import CAPACITY, Answered, Shadow, sampled
from serve_app.types import Bars, Decision, FeatureRows, SignalRequest, Status, VariantName
from tests.factories import (
    LOOKBACK,
    NEEDED,
    Failing,
    arrow_stream,
    arrow_table,
    every_form,
    features_of,
    real_requests,
    window,
    with_stages,
)

WAIT_S = 30
P = ParamSpec("P")
T = TypeVar("T")


def in_a_loop(work: Callable[P, Awaitable[T]]) -> Callable[P, T]:
    """Run a test, or a fixture, in an event loop of its own."""

    @wraps(work)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        async def awaited() -> T:
            return await work(*args, **kwargs)

        return asyncio.run(awaited())

    return run


class Seen:
    """What a shadow kept, and how many it dropped."""

    def __init__(self) -> None:
        self.kept: list[Decision] = []
        self.dropped = 0
        self.changed = asyncio.Event()

    def keep(self, scored: Sequence[Decision]) -> None:
        self.kept += scored
        self.changed.set()

    def drop(self, n: int) -> None:
        self.dropped += n
        self.changed.set()

    async def until_dropped(self, n: int) -> None:
        await self.until(lambda: self.dropped == n)

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not done():
                self.changed.clear()
                await self.changed.wait()


def service_of(production: Pipeline, candidate: Pipeline, share: float, **options: Any) -> SignalService:
    lanes = {
        VariantName.PRODUCTION: Lane(production, production.run),
        VariantName.CANDIDATE: Lane(candidate, candidate.run),
    }
    return SignalService(lanes, Assignment(share), epoch=7, **options)


async def answered(service: SignalService, requests: Sequence[SignalRequest]) -> list[Decision]:
    decisions = await service.decide(by_request("request"), requests)
    assert all(isinstance(one, Decision) and one.status is Status.OK for one in decisions)
    return [one for one in decisions if isinstance(one, Decision)]


async def while_scoring(shadow: Shadow, work: Awaitable[None]) -> None:
    task = asyncio.create_task(shadow.score_forever())
    await work
    assert not task.done()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("share", [0.0, 1.0], ids=["production answers", "candidate answers"])
@in_a_loop
async def test_the_other_variant_scores_what_one_answers(
    pipeline: Pipeline, candidate: Pipeline, bars: Mapping[str, Bars], share: float
) -> None:
    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop)
    service = service_of(pipeline, candidate, share, offer=shadow.offer)
    assert await service.prove()
    requests = real_requests(bars, 100)
    decisions = await answered(service, requests)

    await while_scoring(shadow, seen.until(lambda: len(seen.kept) == len(requests)))
    other = pipeline if share else candidate
    alone = [(await other.run([other.row(request)]))[0] for request in requests]
    for decision, scored, expected in zip(decisions, seen.kept, alone, strict=True):
        assert (scored.decision_id, scored.symbol, scored.timestamp, scored.epoch) == (
            decision.decision_id,
            decision.symbol,
            decision.timestamp,
            7,
        )
        assert scored.variant is not decision.variant
        assert scored.bundle_digest == other.bundle.digest != decision.bundle_digest
        assert scored.probability == pytest.approx(expected.probability, abs=1e-6)
    assert seen.dropped == 0


@in_a_loop
async def test_nothing_is_offered_without_shadow_nor_to_a_variant_that_is_not_proven(
    pipeline: Pipeline, candidate: Pipeline, bars: Mapping[str, Bars]
) -> None:
    offered: list[Answered] = []
    unable = with_stages(candidate, model=Failing(RuntimeError("broken")).run)
    service = service_of(pipeline, unable, 0.0, offer=offered.extend)
    assert not await service.prove()
    await answered(service, real_requests(bars, 3))
    assert offered == []

    able = service_of(pipeline, candidate, 0.0)
    assert await able.prove()
    shadowed = able.followed_by(able._lanes, Assignment(), 8, offered.extend)
    await answered(able, real_requests(bars, 3))
    assert offered == []
    await answered(shadowed, real_requests(bars, 3))
    assert len(offered) == 3


def copies(pipeline: Pipeline, decision: Decision, requests: Sequence[SignalRequest]) -> list[Answered]:
    return [
        Answered(replace(decision, decision_id=str(i)), request, VariantName.CANDIDATE, pipeline)
        for i, request in enumerate(requests)
    ]


@pytest.fixture
@in_a_loop
async def decision(pipeline: Pipeline, bars: Mapping[str, Bars]) -> Decision:
    service = SignalService({VariantName.PRODUCTION: Lane(pipeline, pipeline.run)}, Assignment())
    assert await service.prove()
    return (await answered(service, real_requests(bars, 1)))[0]


@in_a_loop
async def test_what_does_not_fit_is_dropped_and_counted(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop)
    offered = copies(candidate, decision, real_requests(bars, 1) * (CAPACITY - 10))
    shadow.offer(offered)
    shadow.offer(offered[:15])
    await while_scoring(shadow, seen.until(lambda: len(seen.kept) == CAPACITY))
    assert seen.dropped == 5


@in_a_loop
async def test_a_variant_that_fails_is_tried_with_one_request_until_it_answers(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    """What waited for it is dropped: tried one by one, it would stand in the way of all that comes later."""
    sizes: list[int] = []

    async def model(batch: Any) -> Any:
        sizes.append(len(batch))
        if len(sizes) < 4:
            raise RuntimeError("broken")
        return await candidate.stages.model(batch)

    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop, pause_s=0.001)
    waiting = copies(with_stages(candidate, model=model), decision, real_requests(bars, 1) * 70)

    async def ask() -> None:
        for tried in range(1, 4):
            shadow.offer(waiting)
            await seen.until_dropped(69 * tried)
        shadow.offer(waiting)
        await seen.until(lambda: len(seen.kept) == 3 + 70)

    await while_scoring(shadow, ask())
    assert sizes == [1, 1, 1, 1, 64, 5]
    assert [one.status for one in seen.kept].count(Status.ABSTAIN) == 3


@in_a_loop
async def test_a_variant_that_fails_takes_nothing_from_the_other(
    pipeline: Pipeline, candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop, pause_s=0.001)
    unable = with_stages(candidate, model=Failing(RuntimeError("broken")).run)
    requests = real_requests(bars, 1)
    shadow.offer(copies(unable, decision, requests * 2))
    shadow.offer(copies(pipeline, decision, requests * 3))
    shadow.offer(copies(unable, decision, requests))
    await while_scoring(shadow, seen.until(lambda: len(seen.kept) == 1 + 3))
    assert seen.dropped == 2
    assert [one.status for one in seen.kept] == [Status.ABSTAIN, *[Status.OK] * 3]


@in_a_loop
async def test_a_variant_that_sleeps_is_left_alone(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    calls: list[int] = []

    async def model(batch: Any) -> Any:
        calls.append(len(batch))
        if len(calls) > 1:
            await asyncio.Event().wait()
        return await candidate.stages.model(batch)

    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop, timeout_s=0.01, pause_s=0.001)
    asleep = copies(with_stages(candidate, model=model), decision, real_requests(bars, 1) * 67)

    async def ask() -> None:
        shadow.offer(asleep)
        await seen.until_dropped(66)
        shadow.offer(asleep[:2])
        await seen.until_dropped(68)

    await while_scoring(shadow, ask())
    assert calls == [1, 64, 1]
    assert len(seen.kept) == 1


@in_a_loop
async def test_a_symbol_that_the_other_does_not_know_a_defect_and_a_spool_that_is_full_harm_nothing(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    seen = Seen()

    def full(_: Sequence[Decision]) -> None:
        raise SpoolUnavailable("no space left on device")

    (request,) = real_requests(bars, 1)
    broken = replace(request, history=cast("Bars", None))
    shadow = Shadow(full, seen.drop, pause_s=0.001)
    shadow.offer(copies(candidate, decision, [request, replace(request, symbol="FB"), broken, request]))
    await while_scoring(shadow, seen.until(lambda: seen.dropped == 4))


LIMITS = Limits(max_body_bytes=2**23, max_bars=10_000, max_batch_requests=64)


def out_of_a_table(bars: Mapping[str, Bars]) -> SignalRequest:
    """One request of a table of many."""
    body = arrow_stream(arrow_table(real_requests(bars, 50)))
    request = parse_arrow(body, LIMITS, lambda _: TECH23.features)[10]
    assert isinstance(request, SignalRequest)
    return request


LONG: Mapping[str, Callable[[Mapping[str, Bars]], SignalRequest]] = {
    "bars": lambda bars: SignalRequest("IBM", bars["IBM"]),
    "bars out of a table": out_of_a_table,
    "features": lambda bars: SignalRequest("IBM", features_of(bars["IBM"], 2_000)),
}


def kept(values: Any) -> int:
    """Return the bytes that an array keeps in memory, its own and those of what it is a part of."""
    while isinstance(values.base, np.ndarray):
        values = values.base
    size: int = values.nbytes
    return size


@pytest.mark.parametrize("form", LONG)
@in_a_loop
async def test_a_request_that_waits_keeps_what_the_other_variant_reads_and_gets_the_same_answer(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision, form: str
) -> None:
    request = LONG[form](bars)
    seen = Seen()
    shadow = Shadow(seen.keep, seen.drop)
    shadow.offer(copies(candidate, decision, [request]))
    history = shadow._waiting[0].request.history
    if isinstance(history, FeatureRows):
        assert kept(history.values) == LOOKBACK * len(history.columns) * 8
    else:
        assert {kept(x) for x in (history.timestamp, *history.columns.values())} == {NEEDED * 8}
    (expected,) = await candidate.run([candidate.row(request)])
    await while_scoring(shadow, seen.until(lambda: bool(seen.kept)))
    (scored,) = seen.kept
    assert (scored.probability, scored.window_crc) == (expected.probability, expected.window_crc)


def test_a_history_of_the_usual_length_waits_as_it_came(
    candidate: Pipeline, bars: Mapping[str, Bars], decision: Decision
) -> None:
    body = orjson.dumps(every_form("IBM", window(bars["IBM"]))["columns"][1])
    usual = decode_signal(body, LIMITS)
    assert usual is not None
    shadow = Shadow(Seen().keep, Seen().drop)
    shadow.offer(copies(candidate, decision, [usual, parse_signal(parse_json(body, LIMITS), LIMITS)]))
    assert shadow._waiting[0].request is usual
    for one in shadow._waiting:
        assert {kept(x) for x in cast("Bars", one.request.history).columns.values()} == {NEEDED * 8}


@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_a_sample_is_drawn_by_the_decision_and_of_the_size_that_was_asked_for(
    pipeline: Pipeline, decision: Decision, bars: Mapping[str, Bars], share: float
) -> None:
    offered: list[Answered] = []
    request = SignalRequest("IBM", window(bars["IBM"]))
    answered = [
        Answered(replace(decision, decision_id=decision_id("a request", i)), request, VariantName.CANDIDATE, pipeline)
        for i in range(2_000)
    ]
    for _ in range(2):
        sampled(offered.extend, share)(answered)
    n = len(offered) // 2
    assert offered[:n] == offered[n:]
    assert abs(n - 2_000 * share) <= 60 * (0 < share < 1)  # 4.5 standard deviations
