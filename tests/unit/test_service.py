import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from serve_app.batches import PredictionBatch, WindowBatch
from serve_app.errors import (
    InvalidPosition,
    MalformedRequest,
    MissingColumns,
    Overloaded,
    SpoolUnavailable,
    StageUnavailable,
    TooFewBars,
    UnknownSymbol,
)
from serve_app.identity import by_request, decision_id
from serve_app.pipeline import Pipeline
from serve_app.router import Assignment
from serve_app.service import NOT_YET, CurrentService, Lane, Refused, SignalService
from serve_app.types import (
    Action,
    Bars,
    Decision,
    Outcome,
    Position,
    PositionStatus,
    Reason,
    Row,
    SignalRequest,
    Status,
    VariantName,
)
from tests.factories import RowwiseModel, features_of, real_requests, values, window, with_stages

PRODUCTION, CANDIDATE = VariantName.PRODUCTION, VariantName.CANDIDATE
HELD_TOO_LONG = Position(PositionStatus.LONG, time_in_position_bars=8)
HELD_BRIEFLY = Position(PositionStatus.LONG, time_in_position_bars=7)


def alone(pipeline: Pipeline) -> Callable[[Sequence[Row]], Awaitable[list[Outcome]]]:
    """Submit each row as a batch of its own."""

    async def submit(rows: Sequence[Row]) -> list[Outcome]:
        return [outcome for row in rows for outcome in await pipeline.run([row])]

    return submit


def service_of(lanes: Mapping[VariantName, Lane], **assignment: Any) -> SignalService:
    return SignalService(lanes, Assignment(**assignment))


def proven(service: SignalService) -> SignalService:
    assert asyncio.run(service.prove())
    return service


def decide(service: SignalService, *requests: SignalRequest | Refused, request_id: str = "r") -> list[Any]:
    return asyncio.run(service.decide(by_request(request_id), requests))


@pytest.fixture(scope="module")
def service(pipeline: Pipeline) -> SignalService:
    return proven(service_of({PRODUCTION: Lane(pipeline, alone(pipeline))}))


@pytest.fixture(scope="module")
def both(pipeline: Pipeline, candidate: Pipeline) -> SignalService:
    """IBM goes to the candidate."""
    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline)), CANDIDATE: Lane(candidate, alone(candidate))}
    return proven(service_of(lanes, pins={"IBM": CANDIDATE}))


# A decision.


def test_a_decision_names_everything_that_it_rests_on(
    service: SignalService, pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    (decision,) = decide(service, SignalRequest("IBM", bars["IBM"]))
    (outcome,) = asyncio.run(pipeline.run([pipeline.row(SignalRequest("IBM", bars["IBM"]))]))
    assert decision == Decision(
        decision_id=decision.decision_id,
        symbol="IBM",
        timestamp=datetime(2013, 3, 1, tzinfo=UTC),
        status=Status.OK,
        reason=None,
        probability=outcome.probability,
        action=outcome.action,
        variant=PRODUCTION,
        model_version="v1.0",
        bundle_digest=pipeline.bundle.digest,
        epoch=1,
        batch_size=1,
        timings_ms=decision.timings_ms,
        window_crc=outcome.window_crc,
    )
    assert set(decision.timings_ms) == {"preprocess", "model", "strategy"}


def test_decisions_come_in_the_order_of_the_requests(service: SignalService, bars: dict[str, Bars]) -> None:
    requests = real_requests(bars, 12)
    decisions = decide(service, *requests)
    assert values(decisions, "symbol") == values(requests, "symbol")
    alone = [decide(service, request)[0].probability for request in requests]
    assert values(decisions, "probability") == pytest.approx(alone, abs=1e-6)


def test_no_requests_get_no_decisions(service: SignalService) -> None:
    assert decide(service) == []


def test_the_epoch_is_that_of_the_service(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline))}
    third = proven(SignalService(lanes, Assignment(), epoch=3))
    assert decide(third, SignalRequest("IBM", bars["IBM"]))[0].epoch == 3


# Identity and time.


def test_a_request_that_is_sent_twice_is_decided_under_one_id(service: SignalService, bars: dict[str, Bars]) -> None:
    request = SignalRequest("IBM", bars["IBM"])
    first, second = (decide(service, request, request, request_id="abc") for _ in range(2))
    assert values(first, "decision_id") == values(second, "decision_id")
    assert len(set(values(first, "decision_id"))) == 2


def moved(bars: Bars) -> Bars:
    """Return the same bars, of which the last has gone on."""
    close = bars.columns["close"].copy()
    close[-1] *= 1.001
    return replace(bars, columns={**bars.columns, "close": close})


def test_requests_under_one_request_id_are_decided_under_ids_of_their_own(bars: dict[str, Bars]) -> None:
    """A client may send its own trace id with every request of a run: each decision is kept all the same."""
    one, rows = SignalRequest("IBM", bars["IBM"]), features_of(bars["IBM"])
    untimed = replace(one, history=replace(rows, timestamp=None))
    dated = replace(rows, timestamp=datetime(2013, 3, 1, tzinfo=UTC))
    timed = replace(one, history=dated)
    others = [
        one,
        timed,
        replace(timed, history=replace(dated, values=rows.values + 1)),
        replace(one, symbol="MSFT"),
        replace(one, history=window(bars["IBM"], ago=1)),
        replace(one, history=moved(bars["IBM"])),
        replace(one, position=HELD_TOO_LONG),
        replace(one, position=replace(HELD_TOO_LONG, time_in_position_bars=1)),
        untimed,
        replace(untimed, history=replace(rows, timestamp=None, values=rows.values + 1)),
    ]
    identify = by_request("abc")
    assert len({identify(0, other) for other in others}) == len(others)
    assert identify(0, replace(one, history=bars["IBM"].tail(len(bars["IBM"])))) == identify(0, one)
    assert by_request("abc")(0, untimed) == identify(0, replace(untimed, history=replace(rows, timestamp=None)))


def test_decision_ids_are_settled_for_ever() -> None:
    assert decision_id("abc", 0) == str(uuid.uuid5(uuid.UUID("6f1c5a0e-3f0b-5e7c-9d7e-5b1f4c2f9a11"), "abc/0"))
    assert len({decision_id(request, i) for request in ("a", "b", "a/1") for i in range(30)}) == 90


def test_an_index_and_a_request_id_do_not_run_into_each_other() -> None:
    assert decision_id("a/1", 2) != decision_id("a", 12)


def test_a_request_id_and_a_symbol_do_not_run_into_each_other(bars: dict[str, Bars]) -> None:
    pairs = [("a/b", "c"), ("a", "b/c"), ("a", "b c"), ("a/b", "/c")]
    ids = {by_request(request_id)(0, SignalRequest(symbol, bars["IBM"])) for request_id, symbol in pairs}
    assert len(ids) == len(pairs)


def test_the_timestamp_is_that_of_the_last_bar_in_utc(service: SignalService, bars: dict[str, Bars]) -> None:
    decisions = decide(service, *(SignalRequest("IBM", window(bars["IBM"], ago)) for ago in (0, 1, 5)))
    expected = [bars["IBM"].timestamp[-1 - ago] for ago in (0, 1, 5)]
    assert [np.datetime64(d.timestamp.replace(tzinfo=None)) for d in decisions] == expected
    assert {d.timestamp.tzinfo for d in decisions} == {UTC}


@pytest.mark.parametrize("timestamp", [None, datetime(2013, 3, 1, 15, 30, tzinfo=UTC)])
def test_features_have_the_timestamp_that_the_client_gave_or_none(
    service: SignalService, bars: dict[str, Bars], timestamp: datetime | None
) -> None:
    features = replace(features_of(window(bars["IBM"])), timestamp=timestamp)
    (decision,) = decide(service, SignalRequest("IBM", features))
    assert (decision.status, decision.timestamp) == (Status.OK, timestamp)


# Variants.


def test_symbols_go_to_the_variant_that_they_are_assigned_to(
    both: SignalService, pipeline: Pipeline, candidate: Pipeline, bars: dict[str, Bars]
) -> None:
    ibm, aapl = decide(both, SignalRequest("IBM", bars["IBM"]), SignalRequest("AAPL", bars["AAPL"]))
    assert (ibm.variant, ibm.model_version, ibm.bundle_digest) == (CANDIDATE, "v1.1", candidate.bundle.digest)
    assert (aapl.variant, aapl.model_version, aapl.bundle_digest) == (PRODUCTION, "v1.0", pipeline.bundle.digest)


def test_the_share_decides_as_the_assignment_says(
    pipeline: Pipeline, candidate: Pipeline, bars: dict[str, Bars]
) -> None:
    assignment = Assignment(0.3, "ab-test-1")
    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline)), CANDIDATE: Lane(candidate, alone(candidate))}
    service = SignalService(lanes, assignment)
    assert asyncio.run(service.prove())
    requests = real_requests(bars, 4)
    assert values(decide(service, *requests), "variant") == [assignment.variant(r.symbol) for r in requests]
    assert len({assignment.variant(r.symbol) for r in requests}) == 2


def test_the_production_pipeline_is_that_of_the_production_variant(both: SignalService, pipeline: Pipeline) -> None:
    assert both.production is pipeline


# Ready, or not yet.


class Switched:
    """A model that is away until it is switched on."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._model = pipeline.stages.model
        self.error: Exception | None = StageUnavailable("model-production: no replica yet")

    async def run(self, batch: WindowBatch) -> PredictionBatch:
        if self.error is not None:
            raise self.error
        return await self._model(batch)


def test_a_variant_that_is_not_proven_abstains_and_does_not_ask_its_model(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    model = RowwiseModel()
    unasked = with_stages(pipeline, model=model.run)
    service = service_of({PRODUCTION: Lane(unasked, alone(unasked))})
    positions = (Position(), HELD_BRIEFLY, HELD_TOO_LONG)
    decisions = decide(service, *(SignalRequest("IBM", bars["IBM"], position) for position in positions))
    assert service.readiness() == {PRODUCTION: NOT_YET}
    assert values(decisions, "status") == [Status.ABSTAIN] * 3
    assert values(decisions, "reason") == [Reason.MODEL_UNAVAILABLE] * 3
    assert values(decisions, "probability") == [None] * 3
    assert values(decisions, "action") == [Action.HOLD, Action.HOLD, Action.SELL]
    assert values(decisions, "bundle_digest") == [pipeline.bundle.digest] * 3
    assert model.batches == []


def test_an_unproven_variant_still_refuses_what_is_unusable(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    service = service_of({PRODUCTION: Lane(pipeline, alone(pipeline))})
    (refused,) = decide(service, SignalRequest("FB", bars["FB"]))
    assert isinstance(refused.error, UnknownSymbol)


def test_proving_keeps_the_reason_and_recovers(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    model = Switched(pipeline)
    switched = with_stages(pipeline, model=model.run)
    service = service_of({PRODUCTION: Lane(switched, alone(switched))})
    assert not asyncio.run(service.prove())
    assert service.readiness() == {PRODUCTION: "StageUnavailable: model-production: no replica yet"}
    model.error = RuntimeError("out of memory")
    assert not asyncio.run(service.prove())
    assert service.readiness() == {PRODUCTION: "RuntimeError"}  # what a library says of itself is not for everybody
    assert decide(service, SignalRequest("IBM", bars["IBM"]))[0].status is Status.ABSTAIN
    model.error = None
    assert asyncio.run(service.prove())
    assert service.readiness() == {PRODUCTION: None}
    assert decide(service, SignalRequest("IBM", bars["IBM"]))[0].status is Status.OK


def test_variants_are_proven_side_by_side(pipeline: Pipeline, candidate: Pipeline) -> None:
    async def scenario() -> bool:
        both = asyncio.Barrier(2)

        def met(stage: Callable[[WindowBatch], Awaitable[PredictionBatch]]) -> Any:
            async def model(batch: WindowBatch) -> PredictionBatch:
                await both.wait()  # would wait for ever if they came one after the other
                return await stage(batch)

            return model

        pipelines = [with_stages(p, model=met(p.stages.model)) for p in (pipeline, candidate)]
        lanes = {name: Lane(p, alone(p)) for name, p in zip((PRODUCTION, CANDIDATE), pipelines, strict=True)}
        return await service_of(lanes).prove()

    assert asyncio.run(scenario())


UNLUCKY = Position(PositionStatus.LONG, time_in_position_bars=1e6)


class Defective(Pipeline):
    """Meets a defect in every request with one position."""

    def row(self, request: SignalRequest) -> Row:
        if request.position == UNLUCKY:
            raise RuntimeError("/secret/path is gone")
        return super().row(request)


def test_a_defect_answers_one_request_with_an_error_and_the_others_as_usual(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    service = proven(service_of({PRODUCTION: Lane(Defective(pipeline.bundle, pipeline.stages), alone(pipeline))}))
    good, bad = decide(service, SignalRequest("MSFT", bars["MSFT"]), SignalRequest("IBM", bars["IBM"], UNLUCKY))
    assert good.status is Status.OK
    assert bad.error.code == "internal"
    assert "secret" not in str(bad.error)
    assert bad.error.detail["fallback_action"] is Action.SELL


def test_a_defect_in_one_variants_lane_answers_the_other_as_usual(
    pipeline: Pipeline, candidate: Pipeline, bars: dict[str, Bars]
) -> None:
    async def defective(rows: Sequence[Row]) -> list[Outcome]:
        raise RuntimeError(f"/secret/path is gone with {len(rows)} rows")

    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline)), CANDIDATE: Lane(candidate, defective)}
    service = proven(service_of(lanes, pins={"IBM": CANDIDATE}))
    bad, good = decide(service, SignalRequest("IBM", bars["IBM"], HELD_TOO_LONG), SignalRequest("MSFT", bars["MSFT"]))
    assert good.status is Status.OK
    assert bad.error.code == "internal"
    assert "secret" not in str(bad.error)
    assert bad.error.detail["fallback_action"] is Action.SELL


def test_a_parity_error_is_the_reason_with_the_feature_in_it(pipeline: Pipeline) -> None:
    golden = pipeline.bundle.golden
    bundle = replace(pipeline.bundle, golden=replace(golden, windows=golden.windows + 1))
    wrong = Pipeline(bundle, pipeline.stages)
    service = service_of({PRODUCTION: Lane(wrong, alone(wrong))})
    assert not asyncio.run(service.prove())
    assert str(service.readiness()[PRODUCTION]).startswith("ParityError: golden case 0: feature open in row 0")


def test_a_candidate_that_is_not_proven_does_not_keep_production_from_answering(
    pipeline: Pipeline, candidate: Pipeline, bars: dict[str, Bars]
) -> None:
    model = Switched(candidate)
    away = with_stages(candidate, model=model.run)
    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline)), CANDIDATE: Lane(away, alone(away))}
    service = service_of(lanes, pins={"IBM": CANDIDATE})
    assert not asyncio.run(service.prove())
    assert service.readiness()[PRODUCTION] is None
    ibm, aapl = decide(service, SignalRequest("IBM", bars["IBM"]), SignalRequest("AAPL", bars["AAPL"]))
    assert (ibm.status, ibm.variant, ibm.model_version) == (Status.ABSTAIN, CANDIDATE, "v1.1")
    assert (aapl.status, aapl.variant) == (Status.OK, PRODUCTION)


def test_what_was_proven_is_not_proven_again(pipeline: Pipeline) -> None:
    model = RowwiseModel()

    async def counting(batch: WindowBatch) -> PredictionBatch:
        await model.run(batch)
        return await pipeline.stages.model(batch)

    counted = with_stages(pipeline, model=counting)
    service = service_of({PRODUCTION: Lane(counted, alone(counted))})
    assert [asyncio.run(service.prove()) for _ in range(3)] == [True] * 3
    assert model.batches == [12]


# What cannot be answered.


@pytest.mark.parametrize(
    ("position", "action"), [(Position(), Action.HOLD), (HELD_BRIEFLY, Action.HOLD), (HELD_TOO_LONG, Action.SELL)]
)
@pytest.mark.parametrize("symbol", ["IBM", "FB"])
def test_a_refusal_carries_the_action_that_needs_no_model(
    service: SignalService, bars: dict[str, Bars], symbol: str, position: Position, action: Action
) -> None:
    (refused,) = decide(service, SignalRequest(symbol, bars[symbol].tail(10), position))
    assert isinstance(refused.error, TooFewBars if symbol == "IBM" else UnknownSymbol)
    assert refused.error.detail["fallback_action"] is action


@pytest.mark.parametrize(
    "position", [Position(PositionStatus.LONG), Position(PositionStatus.LONG, time_in_position_bars=-1)]
)
def test_a_refusal_of_a_position_that_says_no_time_holds(
    service: SignalService, bars: dict[str, Bars], position: Position
) -> None:
    (refused,) = decide(service, SignalRequest("IBM", bars["IBM"], position))
    assert isinstance(refused.error, InvalidPosition)
    assert refused.error.detail["fallback_action"] is Action.HOLD


def test_what_was_refused_while_reading_gets_the_action_for_what_could_be_read(service: SignalService) -> None:
    long, unknown = decide(
        service,
        Refused(MissingColumns("no close"), "IBM", HELD_TOO_LONG),
        Refused(MalformedRequest("nothing readable")),
    )
    assert long.error.detail["fallback_action"] is Action.SELL
    assert unknown.error.detail["fallback_action"] is Action.HOLD


def test_the_fallback_is_that_of_the_variant_which_the_symbol_is_assigned_to(
    pipeline: Pipeline, candidate: Pipeline
) -> None:
    strategy = replace(candidate.bundle.config.strategy, max_holding_period=3.0)
    bundle = replace(candidate.bundle, config=candidate.bundle.config.model_copy(update={"strategy": strategy}))
    hasty = Pipeline(bundle, candidate.stages)
    lanes = {PRODUCTION: Lane(pipeline, alone(pipeline)), CANDIDATE: Lane(hasty, alone(hasty))}
    service = service_of(lanes, pins={"IBM": CANDIDATE})
    held = Position(PositionStatus.LONG, time_in_position_bars=3)
    ibm, aapl = decide(service, *(Refused(MissingColumns("no close"), symbol, held) for symbol in ("IBM", "AAPL")))
    assert (ibm.error.detail["fallback_action"], aapl.error.detail["fallback_action"]) == (Action.SELL, Action.HOLD)


@pytest.mark.parametrize("where", [0, 3, 7])
def test_one_bad_request_among_many_fails_alone(service: SignalService, bars: dict[str, Bars], where: int) -> None:
    requests: list[SignalRequest] = real_requests(bars, 8)
    expected = values(decide(service, *requests), "probability")
    requests[where] = SignalRequest("FB", bars["FB"], HELD_TOO_LONG)
    answers = decide(service, *requests)
    assert isinstance(answers[where], Refused)
    assert answers[where].error.detail["fallback_action"] is Action.SELL
    assert [a.probability for i, a in enumerate(answers) if i != where] == pytest.approx(
        [p for i, p in enumerate(expected) if i != where], abs=1e-6
    )
    identify = by_request("r")
    assert [a.decision_id for i, a in enumerate(answers) if i != where] == [
        identify(i, request) for i, request in enumerate(requests) if i != where
    ]


def test_a_full_queue_is_a_refusal_with_the_action_that_needs_no_model(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    async def full(_rows: Sequence[Row]) -> list[Outcome]:
        raise Overloaded("1024 requests are waiting", retry_after_s=1)

    service = proven(service_of({PRODUCTION: Lane(pipeline, full)}))
    answers: Sequence[Any] = decide(
        service, *(SignalRequest("IBM", bars["IBM"], p) for p in (HELD_TOO_LONG, Position()))
    )
    assert [a.error.detail for a in answers] == [
        {"retry_after_s": 1, "fallback_action": Action.SELL},
        {"retry_after_s": 1, "fallback_action": Action.HOLD},
    ]


def test_requests_of_one_call_are_submitted_together_and_variants_side_by_side(
    pipeline: Pipeline, candidate: Pipeline, bars: dict[str, Bars]
) -> None:
    async def scenario() -> list[Any]:
        submitted: list[int] = []
        everybody = asyncio.Event()

        async def submit(rows: Sequence[Row]) -> list[Outcome]:
            submitted.append(len(rows))
            if len(submitted) == 2:
                everybody.set()
            await everybody.wait()  # would wait for ever if they came one after the other
            return [Outcome(Action.HOLD, 0.5)] * len(rows)

        lanes = {PRODUCTION: Lane(pipeline, submit), CANDIDATE: Lane(candidate, submit)}
        service = service_of(lanes, pins={"IBM": CANDIDATE})
        assert await service.prove()
        async with asyncio.timeout(10):
            answers = await service.decide(by_request("r"), real_requests(bars, 12))
        assert sorted(submitted) == [3, 9]
        return answers

    assert values(asyncio.run(scenario()), "probability") == [0.5] * 12


# From one epoch to the next.


def test_what_is_proven_stays_proven_and_what_is_new_is_not(
    both: SignalService, pipeline: Pipeline, candidate: Pipeline
) -> None:
    production, other = Lane(pipeline, alone(pipeline)), Lane(candidate, alone(candidate))
    swapped = both.followed_by({PRODUCTION: other, CANDIDATE: production}, Assignment(), 2)
    assert swapped.readiness() == {PRODUCTION: None, CANDIDATE: None}
    alone_before = proven(service_of({PRODUCTION: production}))
    joined = alone_before.followed_by({PRODUCTION: production, CANDIDATE: other}, Assignment(), 2)
    assert joined.readiness() == {PRODUCTION: None, CANDIDATE: NOT_YET}


def test_a_request_is_answered_from_the_epoch_that_it_met(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    leave, arrived = asyncio.Event(), asyncio.Event()

    async def patient(rows: Sequence[Row]) -> list[Outcome]:
        arrived.set()
        await leave.wait()
        return await pipeline.run(rows)

    async def switched_meanwhile() -> list[Any]:
        current = CurrentService(service_of({PRODUCTION: Lane(pipeline, patient)}))
        assert await current.prove()
        before = asyncio.create_task(current.decide(by_request("a"), [SignalRequest("IBM", bars["IBM"])]))
        await arrived.wait()
        current.now = current.now.followed_by({PRODUCTION: Lane(pipeline, pipeline.run)}, Assignment(), 2)
        after = await current.decide(by_request("b"), [SignalRequest("IBM", bars["IBM"])])
        leave.set()
        return [*await before, *after]

    decisions = asyncio.run(switched_meanwhile())
    assert values(decisions, "epoch") == [1, 2]
    assert values(decisions, "status") == [Status.OK, Status.OK]


def test_decisions_are_kept_before_they_are_answered(pipeline: Pipeline, bars: dict[str, Bars]) -> None:
    kept: list[tuple[Decision, Row]] = []
    lanes = {PRODUCTION: Lane(pipeline, pipeline.run)}
    service = proven(SignalService(lanes, Assignment(), keep=kept.extend))
    asked = SignalRequest("IBM", bars["IBM"])
    answers = decide(service, asked, SignalRequest("NONE", bars["IBM"]), asked)
    assert [decision for decision, _ in kept] == [answers[0], answers[2]]
    assert all(same_row(row, pipeline.row(asked)) for _, row in kept)
    after = service.followed_by(lanes, Assignment(), 2)
    answer, *_ = decide(after, asked)
    assert kept[-1][0] is answer


def same_row(a: Row, b: Row) -> bool:
    return a.bars is not None and b.bars is not None and a.bars.tobytes() == b.bars.tobytes()


def test_a_decision_that_cannot_be_kept_is_refused_with_the_action_of_its_position(
    pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    def full(_: object) -> None:
        raise SpoolUnavailable("the disk is full")

    service = proven(SignalService({PRODUCTION: Lane(pipeline, pipeline.run)}, Assignment(), keep=full))
    answers = decide(service, *(SignalRequest("IBM", bars["IBM"], held) for held in (HELD_TOO_LONG, HELD_BRIEFLY)))
    assert [answer.error.code for answer in answers] == ["spool_unavailable"] * 2
    assert [answer.error.detail["fallback_action"] for answer in answers] == [Action.SELL, Action.HOLD]
