import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import fields, replace
from itertools import chain, count
from typing import Any, TypeVar

import numpy as np
import pytest

from deployments.batching import Batcher, Limits, Sent
from serve_app.errors import Overloaded, StageFailed
from serve_app.types import Action, Outcome, Reason, Row

T = TypeVar("T")
FOREVER = 3600.0


def limits(**changes: Any) -> Limits:
    return replace(Limits(max_batch_size=64, max_in_flight=1, max_queued_rows=100, deadline_s=FOREVER), **changes)


def abstain(row: Row, reason: Reason) -> Outcome:
    return Outcome(Action.SELL if row.is_long else Action.HOLD, reason=reason)


def answer(rows: Sequence[Row]) -> list[Outcome]:
    """Each row's probability is its asset id in percent, so that a mix-up shows."""
    return [Outcome(Action.HOLD, row.asset_id / 100, batch_size=len(rows)) for row in rows]


class Downstream:
    """The stages: holds every batch until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = 0
        self.most = 0
        self._gates: list[asyncio.Event] = []

    async def run(self, rows: Sequence[Row]) -> list[Outcome]:
        self.batches.append([row.asset_id for row in rows])
        gate = asyncio.Event()
        self._gates.append(gate)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await gate.wait()
        finally:
            self.running -= 1
        return answer(rows)

    async def let_go(self, batch: int) -> None:
        self._gates[batch].set()
        await settled()

    async def let_all_go(self) -> None:
        done = 0
        while done < len(self._gates):
            await self.let_go(done)
            done += 1


async def settled() -> None:
    """Give every task that can run its turns; no time passes."""
    for _ in range(20):
        await asyncio.sleep(0)


async def one(batcher: Batcher, row: Row) -> Outcome:
    (outcome,) = await batcher.submit([row])
    return outcome


def submit(batcher: Batcher, *ids: int) -> list[asyncio.Task[Outcome]]:
    return [asyncio.ensure_future(one(batcher, Row(asset_id))) for asset_id in ids]


def run(scenario: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a scenario, and fail rather than hang."""

    async def limited() -> T:
        async with asyncio.timeout(60):
            return await scenario()

    return asyncio.run(limited())


async def probabilities(tasks: Sequence[Awaitable[Outcome]]) -> list[float | None]:
    return [outcome.probability for outcome in await asyncio.gather(*tasks)]


# Gathering.


def test_requests_that_arrive_together_leave_as_one_batch_in_their_order() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        tasks = submit(Batcher(downstream.run, abstain, limits()), *range(10))
        await settled()
        assert downstream.batches == [list(range(10))]
        await downstream.let_all_go()
        assert await probabilities(tasks) == [i / 100 for i in range(10)]

    run(scenario)


def test_a_lone_request_leaves_at_once() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        (task,) = submit(Batcher(downstream.run, abstain, limits()), 7)
        await settled()
        assert downstream.batches == [[7]]
        await downstream.let_all_go()
        assert (await task).batch_size == 1

    run(scenario)


def test_all_that_arrive_while_a_batch_is_away_leave_together_when_it_is_back() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits())
        tasks = submit(batcher, 0)
        await settled()
        for asset_id in range(1, 30):
            tasks += submit(batcher, asset_id)
            await settled()  # one after the other, and none of them is cut alone
        assert downstream.batches == [[0]]
        await downstream.let_go(0)
        assert downstream.batches == [[0], list(range(1, 30))]
        await downstream.let_all_go()
        assert await probabilities(tasks) == [i / 100 for i in range(30)]

    run(scenario)


@pytest.mark.parametrize(("n", "sizes"), [(4, [4]), (5, [4, 1]), (12, [4, 4, 4])])
def test_a_batch_is_no_larger_than_allowed(n: int, sizes: list[int]) -> None:
    async def scenario() -> None:
        downstream = Downstream()
        tasks = submit(Batcher(downstream.run, abstain, limits(max_batch_size=4)), *range(n))
        await settled()
        assert len(downstream.batches) == 1
        await downstream.let_all_go()
        assert [len(batch) for batch in downstream.batches] == sizes
        assert list(chain(*downstream.batches)) == list(range(n))
        assert await probabilities(tasks) == [i / 100 for i in range(n)]

    run(scenario)


@pytest.mark.parametrize("in_flight", [1, 2, 3])
def test_no_more_batches_are_away_than_allowed(in_flight: int) -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2, max_in_flight=in_flight))
        tasks = submit(batcher, *range(20))
        await settled()
        assert downstream.running == in_flight
        await downstream.let_go(0)
        assert downstream.running == in_flight
        await downstream.let_all_go()
        assert downstream.most == in_flight
        assert await probabilities(tasks) == [i / 100 for i in range(20)]

    run(scenario)


def test_batches_may_come_back_in_another_order_than_they_left() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        tasks = submit(Batcher(downstream.run, abstain, limits(max_batch_size=2, max_in_flight=2)), *range(4))
        await settled()
        await downstream.let_go(1)
        assert [task.done() for task in tasks] == [False, False, True, True]
        await downstream.let_go(0)
        assert await probabilities(tasks) == [0.0, 0.01, 0.02, 0.03]

    run(scenario)


def test_the_time_in_the_queue_is_told_beside_that_of_the_stages() -> None:
    async def scenario() -> None:
        ticks = count()

        async def staged(rows: Sequence[Row]) -> list[Outcome]:
            return [Outcome(Action.HOLD, 0.5, timings_ms={"model": 2.0}) for _ in rows]

        batcher = Batcher(staged, abstain, limits(), clock=lambda: float(next(ticks)))
        outcomes = await asyncio.gather(*submit(batcher, 0, 1, 2))  # arrive at 0, 1, 2, leave at 3
        assert [dict(outcome.timings_ms) for outcome in outcomes] == [
            {"queue": 1e3 * waited, "model": 2.0} for waited in (3, 2, 1)
        ]
        assert list(outcomes[0].timings_ms) == ["queue", "model"]

    run(scenario)


# Callers that go away.


def test_all_that_the_stages_say_of_a_row_comes_back() -> None:
    said = Outcome(Action.BUY, 0.5, None, 3, {"model": 2.0}, 77, np.array([1.0, np.nan], dtype=np.float32))
    assert all(getattr(said, column.name) is not None for column in fields(Outcome) if column.name != "reason")

    async def scenario() -> None:
        async def stages(rows: Sequence[Row]) -> list[Outcome]:
            return [said] * len(rows)

        outcome = await one(Batcher(stages, abstain, limits()), Row(1))
        for column in fields(Outcome):
            if column.name != "timings_ms":
                assert getattr(outcome, column.name) is getattr(said, column.name)

    run(scenario)


def test_a_caller_that_goes_away_before_the_cut_is_left_out() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits())
        first = submit(batcher, 0)
        await settled()
        later = submit(batcher, 1, 2, 3)
        await settled()
        later[1].cancel()
        await downstream.let_go(0)
        assert downstream.batches == [[0], [1, 3]]
        await downstream.let_all_go()
        assert await probabilities([*first, later[0], later[2]]) == [0.0, 0.01, 0.03]
        assert later[1].cancelled()

    run(scenario)


def test_a_caller_that_goes_away_during_the_run_disturbs_nobody() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        tasks = submit(Batcher(downstream.run, abstain, limits()), 0, 1, 2)
        await settled()
        tasks[1].cancel()
        await settled()
        assert downstream.running == 1, "the batch was cancelled with the caller"
        await downstream.let_all_go()
        assert await probabilities([tasks[0], tasks[2]]) == [0.0, 0.02]
        assert tasks[1].cancelled()

    run(scenario)


def test_when_all_callers_went_away_nothing_is_sent_and_the_next_is_served() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits())
        first = submit(batcher, 0)
        await settled()
        gone = submit(batcher, 1, 2)
        await settled()
        for task in gone:
            task.cancel()
        await downstream.let_go(0)
        assert downstream.batches == [[0]]
        last = submit(batcher, 3)
        await settled()
        assert downstream.batches == [[0], [3]]
        await downstream.let_all_go()
        assert await probabilities([*first, *last]) == [0.0, 0.03]

    run(scenario)


def test_callers_that_went_away_take_no_place_in_a_batch() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2))
        submit(batcher, 0)
        await settled()
        tasks = submit(batcher, 1, 2, 3, 4)
        await settled()
        tasks[0].cancel()
        tasks[2].cancel()
        await downstream.let_go(0)
        assert downstream.batches[1] == [2, 4]
        await downstream.let_all_go()

    run(scenario)


# Too many.


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_queued_rows=3))
        away = submit(batcher, 0)
        await settled()
        waiting = submit(batcher, 1, 2, 3)
        await settled()
        with pytest.raises(Overloaded, match="3 requests are waiting for this model") as refusal:
            await one(batcher, Row(4))
        assert refusal.value.detail == {"retry_after_s": 1}
        await downstream.let_go(0)
        served = submit(batcher, 5)  # there is room again
        await downstream.let_all_go()
        assert await probabilities([*away, *waiting, *served]) == [0.0, 0.01, 0.02, 0.03, 0.05]
        assert downstream.batches == [[0], [1, 2, 3], [5]]

    run(scenario)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_queue_whose_first_has_waited_for_long_takes_no_more_until_it_is_shorter() -> None:
    async def scenario() -> None:
        clock, downstream = Clock(), Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=1, max_queue_s=2.0), clock=clock)
        tasks = submit(batcher, 0, 1, 2)
        await settled()
        clock.now = 2.0
        await downstream.let_go(0)  # 2 waits on, since 0.0
        tasks += submit(batcher, 3)
        await settled()
        clock.now = 2.5
        with pytest.raises(Overloaded, match="2 requests are waiting for this model") as refusal:
            await batcher.submit([Row(4)])
        assert refusal.value.detail == {"retry_after_s": 1}
        await downstream.let_go(1)
        tasks += submit(batcher, 5)  # the first now is 3, since 2.0
        await settled()
        await downstream.let_all_go()
        assert downstream.batches == [[0], [1], [2], [3], [5]]
        assert await probabilities(tasks) == [0.0, 0.01, 0.02, 0.03, 0.05]

    run(scenario)


def test_rows_that_nobody_awaits_any_more_make_no_queue_slow() -> None:
    async def scenario() -> None:
        clock, downstream = Clock(), Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=1, max_queue_s=2.0), clock=clock)
        *tasks, gone = submit(batcher, 0, 1, 2)
        await settled()
        clock.now = 2.0
        await downstream.let_go(0)
        gone.cancel()  # as a deadline that has passed, it leaves its row in the queue, since 0.0
        await settled()
        clock.now = 2.5
        tasks += submit(batcher, 3)
        await settled()
        await downstream.let_all_go()
        assert downstream.batches == [[0], [1], [3]]
        assert await probabilities(tasks) == [0.0, 0.01, 0.03]

    run(scenario)


def test_while_nothing_comes_back_rows_are_taken_and_wait_for_their_deadline() -> None:
    async def scenario() -> None:
        clock, downstream = Clock(), Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=1, max_queue_s=2.0), clock=clock)
        tasks = submit(batcher, 0, 1)
        await settled()
        clock.now = 10.0
        tasks += submit(batcher, 2)
        await settled()
        await downstream.let_all_go()
        assert await probabilities(tasks) == [0.0, 0.01, 0.02]

    run(scenario)


def test_rows_that_nobody_awaits_do_not_fill_the_queue() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_queued_rows=3))
        submit(batcher, 0)
        await settled()
        tasks = submit(batcher, 1, 2, 3)
        await settled()
        tasks[0].cancel()
        await settled()
        (replacement,) = submit(batcher, 4)
        await settled()
        assert not replacement.done()
        with pytest.raises(Overloaded):
            await one(batcher, Row(5))
        await downstream.let_all_go()
        assert downstream.batches == [[0], [2, 3, 4]]
        assert (await replacement).probability == 0.04

    run(scenario)


def test_no_more_callers_wait_than_may_whether_their_rows_are_away_or_not() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_calls=2))
        away = submit(batcher, 0)
        await settled()
        waiting = submit(batcher, 1)
        await settled()
        with pytest.raises(Overloaded):
            await one(batcher, Row(2))
        waiting[0].cancel()
        served = submit(batcher, 3)  # a caller has left
        await downstream.let_all_go()
        assert await probabilities([*away, *served]) == [0.0, 0.03]

    run(scenario)


def test_two_batchers_have_queues_of_their_own() -> None:
    async def scenario() -> None:
        slow, fast = Downstream(), Downstream()
        stuck = Batcher(slow.run, abstain, limits(max_queued_rows=1))
        free = Batcher(fast.run, abstain, limits(max_queued_rows=1))
        submit(stuck, 0)
        await settled()
        submit(stuck, 1)
        await settled()
        with pytest.raises(Overloaded):
            await one(stuck, Row(2))
        (task,) = submit(free, 3)
        await settled()
        await fast.let_all_go()
        assert (await task).probability == 0.03
        await slow.let_all_go()

    run(scenario)


# Too late, or wrong.

SOON = 1e-3


def test_what_is_not_answered_by_the_deadline_is_an_abstention() -> None:
    async def scenario() -> list[Outcome]:
        downstream = Downstream()  # never lets go
        batcher = Batcher(downstream.run, abstain, limits(deadline_s=SOON))
        return list(await asyncio.gather(one(batcher, Row(0)), one(batcher, Row(1, is_long=True))))

    assert run(scenario) == [
        Outcome(Action.HOLD, reason=Reason.DEADLINE),
        Outcome(Action.SELL, reason=Reason.DEADLINE),
    ]


def test_a_batch_that_hangs_gives_its_permit_back_at_the_deadline() -> None:
    async def scenario() -> None:
        released = asyncio.Event()
        batches: list[list[int]] = []

        async def hangs_once(rows: Sequence[Row]) -> list[Outcome]:
            batches.append([row.asset_id for row in rows])
            if len(batches) == 1:
                try:
                    await asyncio.Event().wait()
                finally:
                    released.set()
            return answer(rows)

        batcher = Batcher(hangs_once, abstain, limits(deadline_s=SOON))
        assert (await one(batcher, Row(0))).reason is Reason.DEADLINE
        await released.wait()
        await settled()
        # The permit is free: a batch leaves at once, whether or not it is back in time.
        submit(batcher, 1)
        await settled()
        assert batches == [[0], [1]]

    run(scenario)


def test_after_a_batch_that_never_came_back_one_tries_and_the_others_abstain_at_once() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(deadline_s=SOON))
        assert (await one(batcher, Row(0))).reason is Reason.DEADLINE
        await settled()
        batcher.limits = limits()
        (trying,) = submit(batcher, 1)
        await settled()
        beside = await asyncio.gather(*submit(batcher, 2), one(batcher, Row(3, is_long=True)))
        assert [outcome.reason for outcome in beside] == [Reason.MODEL_UNAVAILABLE] * 2
        assert [outcome.action for outcome in beside] == [Action.HOLD, Action.SELL]
        assert downstream.batches == [[0], [1]]
        await downstream.let_go(1)
        assert (await trying).probability == 0.01
        tasks = submit(batcher, 4)
        await settled()
        tasks += submit(batcher, 5)
        await settled()
        await downstream.let_all_go()
        assert await probabilities(tasks) == [0.04, 0.05]

    run(scenario)


def test_a_row_that_is_late_in_the_queue_is_never_sent() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()
        batches: list[list[int]] = []

        async def stubborn(rows: Sequence[Row]) -> list[Outcome]:
            """Keep the permit beyond the deadline, until the gate opens."""
            batches.append([row.asset_id for row in rows])
            try:
                await asyncio.Event().wait()
            finally:
                await gate.wait()
            return answer(rows)

        batcher = Batcher(stubborn, abstain, limits(deadline_s=SOON))
        tasks = submit(batcher, 0)
        await settled()
        tasks += submit(batcher, 1)
        assert [outcome.reason for outcome in await asyncio.gather(*tasks)] == [Reason.DEADLINE] * 2
        gate.set()
        await settled()
        assert batches == [[0]]

    run(scenario)


def test_what_run_raises_reaches_every_caller_of_that_batch_and_no_other() -> None:
    async def scenario() -> None:
        async def choosy(rows: Sequence[Row]) -> list[Outcome]:
            if rows[0].asset_id < 2:
                raise RuntimeError("a defect")
            return answer(rows)

        tasks = submit(Batcher(choosy, abstain, limits(max_batch_size=2)), 0, 1, 2, 3)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [str(result) for result in results[:2]] == ["a defect"] * 2
        assert await probabilities(tasks[2:]) == [0.02, 0.03]

    run(scenario)


def test_a_defect_gives_its_permit_back() -> None:
    async def scenario() -> None:
        failures = iter([True, False])

        async def fails_once(rows: Sequence[Row]) -> list[Outcome]:
            if next(failures):
                raise RuntimeError("a defect")
            return answer(rows)

        batcher = Batcher(fails_once, abstain, limits())
        with pytest.raises(RuntimeError, match="a defect"):
            await one(batcher, Row(0))
        assert (await one(batcher, Row(1))).probability == 0.01

    run(scenario)


def test_answers_to_another_number_of_rows_reach_the_callers_as_an_error() -> None:
    async def scenario() -> None:
        async def short(rows: Sequence[Row]) -> list[Outcome]:
            return answer(rows)[:-1]

        tasks = submit(Batcher(short, abstain, limits()), 0, 1)
        errors = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(error) for error in errors] == [StageFailed] * 2
        assert str(errors[0]) == "2 rows got 1 outcomes"

    run(scenario)


async def turns(rows: Sequence[Row]) -> list[Outcome]:
    """Answer after a few turns of the loop, sometimes more and sometimes fewer."""
    for _ in range(rows[0].asset_id % 7):
        await asyncio.sleep(0)
    return answer(rows)


def test_hundreds_of_callers_each_get_their_own_answer() -> None:
    async def scenario() -> None:
        batcher = Batcher(turns, abstain, limits(max_batch_size=16, max_in_flight=3, max_queued_rows=1000))
        tasks = []
        for asset_id in range(500):
            tasks += submit(batcher, asset_id)
            if asset_id % 3 == 0:
                await asyncio.sleep(0)
            if asset_id % 11 == 0:
                tasks[-1].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        gone = {i for i, outcome in enumerate(outcomes) if isinstance(outcome, asyncio.CancelledError)}
        assert gone == set(range(0, 500, 11))
        assert await probabilities([task for i, task in enumerate(tasks) if i not in gone]) == [
            i / 100 for i in range(500) if i not in gone
        ]

    run(scenario)


def test_a_batch_does_not_run_in_the_context_of_one_of_its_callers() -> None:
    caller = contextvars.ContextVar("caller", default="nobody")
    seen = []

    async def remember(rows: Sequence[Row]) -> list[Outcome]:
        seen.append(caller.get())
        return answer(rows)

    async def scenario() -> None:
        caller.set("a request that Ray Serve may cancel")
        batcher = Batcher(remember, abstain, limits(max_batch_size=1))
        await asyncio.gather(*submit(batcher, 1, 2, 3))

    run(scenario)
    assert seen == ["nobody"] * 3


# Several rows in one call.


def call(batcher: Batcher, *ids: int) -> asyncio.Task[list[Outcome]]:
    return asyncio.ensure_future(batcher.submit([Row(asset_id) for asset_id in ids]))


def test_the_rows_of_a_call_go_in_as_many_batches_as_they_need_and_come_back_together() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=4))
        lone, many = submit(batcher, 0), call(batcher, *range(1, 10))
        await settled()
        await downstream.let_go(0)
        assert not many.done()
        await downstream.let_all_go()
        assert downstream.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
        assert [outcome.probability for outcome in await many] == [i / 100 for i in range(1, 10)]
        assert await probabilities(lone) == [0.0]

    run(scenario)


def test_a_call_of_no_rows_has_no_outcomes() -> None:
    async def scenario() -> list[Outcome]:
        return await Batcher(Downstream().run, abstain, limits()).submit([])

    assert run(scenario) == []


def test_of_a_call_that_is_late_what_was_answered_is_kept() -> None:
    async def scenario() -> list[Outcome]:
        async def first_only(rows: Sequence[Row]) -> list[Outcome]:
            if rows[0].asset_id:
                await asyncio.Event().wait()
            return answer(rows)

        batcher = Batcher(first_only, abstain, limits(max_batch_size=2, deadline_s=SOON))
        return await batcher.submit([Row(0), Row(1), Row(2), Row(3, is_long=True)])

    outcomes = run(scenario)
    assert [outcome.probability for outcome in outcomes] == [0.0, 0.01, None, None]
    assert [outcome.reason for outcome in outcomes] == [None, None, Reason.DEADLINE, Reason.DEADLINE]
    assert [outcome.action for outcome in outcomes[2:]] == [Action.HOLD, Action.SELL]


def test_a_call_that_finds_no_room_for_all_its_rows_is_refused_as_a_whole() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_queued_rows=3))
        first = call(batcher, 0)
        await settled()
        second = call(batcher, 1, 2)
        await settled()
        with pytest.raises(Overloaded, match="2 requests are waiting"):
            await batcher.submit([Row(3), Row(4)])
        await downstream.let_all_go()
        assert downstream.batches == [[0], [1, 2]]
        await asyncio.gather(first, second)

    run(scenario)


def test_a_caller_of_many_rows_that_goes_away_takes_them_all_along() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2))
        gone = call(batcher, 0, 1, 2, 3)
        stays = call(batcher, 4)
        await settled()
        gone.cancel()
        await downstream.let_all_go()
        assert downstream.batches == [[0, 1], [4]]
        assert [outcome.probability for outcome in await stays] == [0.04]

    run(scenario)


# Further permits, waiting for company, and limits that change.


def test_a_second_batch_leaves_while_the_first_is_away_only_when_it_is_full() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=3, max_in_flight=2))
        tasks = submit(batcher, 0)
        await settled()
        tasks += submit(batcher, 1, 2)
        await settled()
        assert downstream.batches == [[0]]
        tasks += submit(batcher, 3)
        await settled()
        assert downstream.batches == [[0], [1, 2, 3]]
        tasks += submit(batcher, 4, 5, 6)
        await settled()
        assert downstream.running == 2
        await downstream.let_all_go()
        assert downstream.batches == [[0], [1, 2, 3], [4, 5, 6]]
        assert await probabilities(tasks) == [i / 100 for i in range(7)]

    run(scenario)


def test_a_batch_that_is_not_full_waits_for_company_and_a_full_one_does_not() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        patient = limits(max_batch_size=3, max_wait_s=FOREVER)
        batcher = Batcher(downstream.run, abstain, patient)
        tasks = submit(batcher, 0, 1)
        await settled()
        assert downstream.batches == []
        tasks += submit(batcher, 2)
        await settled()
        assert downstream.batches == [[0, 1, 2]]
        await downstream.let_all_go()
        assert await probabilities(tasks) == [0.0, 0.01, 0.02]

    run(scenario)


def test_company_is_waited_for_no_longer_than_allowed() -> None:
    async def scenario() -> Outcome:
        async def at_once(rows: Sequence[Row]) -> list[Outcome]:
            return answer(rows)

        return await one(Batcher(at_once, abstain, limits(max_wait_s=SOON)), Row(7))

    assert run(scenario).probability == 0.07


def test_rows_wait_for_company_of_their_own_though_those_before_left_early(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        now = 0.0
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2, max_in_flight=2, max_wait_s=10))
        tasks = submit(batcher, 0, 1)
        await settled()
        tasks += submit(batcher, 2)  # would wait until 10, and leaves at once when the first batch is back
        await settled()
        await downstream.let_go(0)
        await downstream.let_go(1)
        now = 5
        tasks += submit(batcher, 3)
        await settled()
        now = 11
        await settled()
        assert downstream.batches == [[0, 1], [2]]
        now = 16
        await settled()
        assert downstream.batches == [[0, 1], [2], [3]]
        await downstream.let_all_go()
        assert await probabilities(tasks) == [0.0, 0.01, 0.02, 0.03]

    asyncio.run(scenario())


def test_limits_that_change_hold_from_the_next_batch_on() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2))
        tasks = submit(batcher, *range(6))
        await settled()
        batcher.limits = limits(max_batch_size=3)
        await downstream.let_all_go()
        assert [len(batch) for batch in downstream.batches] == [2, 3, 1]
        assert await probabilities(tasks) == [i / 100 for i in range(6)]

    run(scenario)


def test_every_batch_is_told_with_how_long_each_row_had_waited() -> None:
    async def scenario() -> list[Sent]:
        ticks = count()
        told: list[Sent] = []

        async def at_once(rows: Sequence[Row]) -> list[Outcome]:
            return answer(rows)

        batcher = Batcher(at_once, abstain, limits(), told.append, clock=lambda: float(next(ticks)))
        await asyncio.gather(*submit(batcher, 0, 1, 2))  # arrive at 0, 1, 2, leave at 3, are back at 4
        await settled()
        return told

    (batch,) = run(scenario)
    assert (list(batch.waits_s), batch.took_s, len(batch)) == ([3, 2, 1], 1, 3)


@pytest.mark.parametrize("fails", [True, False], ids=["failed", "late"])
def test_a_batch_that_failed_or_was_given_up_is_told_too_with_what_is_outstanding_then(fails: bool) -> None:
    async def scenario() -> list[tuple[int, int]]:
        told: list[tuple[int, int]] = []
        heard = asyncio.Event()

        async def broken(_: Sequence[Row]) -> list[Outcome]:
            if fails:
                raise RuntimeError("a defect")
            await asyncio.Event().wait()
            raise AssertionError

        def sent(batch: Sent) -> None:
            told.append((len(batch), batcher.outstanding))
            heard.set()

        batcher = Batcher(broken, abstain, limits(deadline_s=SOON), sent)
        await asyncio.gather(*submit(batcher, 0, 1, 2), return_exceptions=True)
        await heard.wait()
        return told

    assert run(scenario) == [(3, 0)]


def test_outstanding_are_rows_that_wait_and_rows_that_are_away() -> None:
    async def scenario() -> None:
        downstream = Downstream()
        batcher = Batcher(downstream.run, abstain, limits(max_batch_size=2))
        assert batcher.outstanding == 0
        tasks = submit(batcher, *range(5))
        await settled()
        assert (batcher.outstanding, downstream.batches) == (5, [[0, 1]])
        await downstream.let_go(0)
        assert batcher.outstanding == 3
        await downstream.let_all_go()
        await asyncio.gather(*tasks)
        assert batcher.outstanding == 0

    run(scenario)
