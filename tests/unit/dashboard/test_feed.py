"""One gathering a second for all who look, streams that end, and no more viewers than there is room for."""

import asyncio
import json
from typing import Any

import pytest

from serve_app.dashboard.feed import EVERY_S, STREAM_S, VIEWERS, Feed
from serve_app.errors import TooManyViewers
from tests.unit.hurried import Hurried


class Clock:
    """Time that passes when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        before = self.now
        await asyncio.sleep(0)
        self.now = max(self.now, before + seconds)


class Gathered:
    """What there is to see: how often it was asked for."""

    def __init__(self) -> None:
        self.times = 0

    async def __call__(self) -> dict[str, Any]:
        self.times += 1
        return {"times": self.times}


def feed_of(gathered: Gathered, clock: Clock) -> Feed:
    return Feed(gathered, clock, clock.sleep)


async def looked(feed: Feed) -> list[int]:
    """What one viewer saw until the stream ended."""
    seen = [message async for message in feed.stream()]
    assert all(message.startswith(b"data: ") and message.endswith(b"\n\n") for message in seen)
    return [json.loads(message[len("data: ") :])["times"] for message in seen]


def test_a_stream_tells_each_second_and_ends() -> None:
    gathered = Gathered()
    assert asyncio.run(looked(feed_of(gathered, Clock()))) == list(range(1, int(STREAM_S / EVERY_S) + 1))


def test_who_wakes_early_is_told_nothing_twice() -> None:
    class Early(Clock):
        async def sleep(self, seconds: float) -> None:
            await super().sleep(seconds - 0.0005)

    gathered = Gathered()
    assert asyncio.run(looked(feed_of(gathered, Early())))[:5] == [1, 2, 3, 4, 5]


def test_many_viewers_cost_one_gathering() -> None:
    async def all_of_them() -> list[list[int]]:
        feed = feed_of(gathered, Clock())
        return await asyncio.gather(*(looked(feed) for _ in range(5)))

    gathered = Gathered()
    seen = asyncio.run(all_of_them())
    assert len(seen) == 5
    assert gathered.times == max(map(max, seen)) <= STREAM_S / EVERY_S


def test_viewers_who_come_at_any_moment_cost_one_gathering_a_second() -> None:
    async def one_after_another() -> float:
        loop = asyncio.get_running_loop()
        feed = Feed(gathered, loop.time)
        looking = []
        for _ in range(5):
            looking.append(asyncio.create_task(looked(feed)))
            await asyncio.sleep(0.17)
        await asyncio.gather(*looking)
        return loop.time()

    gathered = Gathered()
    with asyncio.Runner(loop_factory=Hurried) as runner:
        took_s = runner.run(one_after_another())
    assert STREAM_S <= gathered.times <= took_s / EVERY_S + 1


def test_there_is_room_for_so_many_and_again_when_one_leaves() -> None:
    async def crowd() -> None:
        feed = feed_of(Gathered(), Clock())
        looking = [feed.stream() for _ in range(VIEWERS)]
        for one in looking:
            await anext(one)
        with pytest.raises(TooManyViewers, match="close a dashboard"):
            feed.stream()
        await looking[0].aclose()  # type: ignore[attr-defined]
        assert await anext(feed.stream())

    asyncio.run(crowd())


def test_one_who_leaves_before_the_first_message_takes_no_place() -> None:
    async def crowd() -> None:
        feed = feed_of(Gathered(), Clock())
        for _ in range(VIEWERS + 1):
            feed.stream()  # the connection is gone before anything is sent
        assert await anext(feed.stream())

    asyncio.run(crowd())
