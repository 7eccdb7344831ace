import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime

import httpx2
import pytest

from serve_app import webhook
from serve_app.config import AlertName
from serve_app.monitor import Alert, AlertState
from serve_app.webhook import Webhook, signature

NOW = datetime(2026, 1, 1, tzinfo=UTC)
KEY = "a key of our own"
EVENT = Alert(AlertName.FEATURE_DRIFT, "v1.0", AlertState.FIRING, NOW, 1.0, 0.0, "unlike training: RSI_14")


class Receiver:
    """Answers with these statuses in turn, the last for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.got: list[httpx2.Request] = []
        self._came = asyncio.Condition()

    async def has(self, requests: int) -> None:
        async with self._came:
            await self._came.wait_for(lambda: len(self.got) >= requests)

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.got.append(request)
        async with self._came:
            self._came.notify_all()
        status = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        if status == 0:
            raise httpx2.ConnectError("refused")
        return httpx2.Response(status)


def client_of(receiver: Receiver) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=httpx2.MockTransport(receiver))


def delivered(receiver: Receiver, events: list[Alert], requests: int, signed_with: str | None = KEY) -> None:
    """Offer events and wait until the receiver has so many requests."""

    async def run() -> None:
        hook = Webhook("http://example.test/hook", signed_with, lambda: client_of(receiver), lambda: NOW)
        task = asyncio.create_task(hook.deliver_forever())
        for event in events:
            hook.offer(event)
        await asyncio.wait_for(receiver.has(requests), 10)
        task.cancel()

    asyncio.run(run())


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "WAITS_S", (0.0, 0.0))


def test_an_event_is_posted_and_signed_as_standard_webhooks_say() -> None:
    receiver = Receiver(200)
    delivered(receiver, [EVENT], 1)
    (request,) = receiver.got
    timestamp = request.headers["webhook-timestamp"]
    assert (request.headers["webhook-id"], timestamp) == (EVENT.id, str(int(NOW.timestamp())))
    expected = hmac.new(KEY.encode(), f"{EVENT.id}.{timestamp}.".encode() + request.content, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()
    document = json.loads(request.content)
    assert (document["type"], document["data"]["alert"], document["wants_retraining"]) == (
        "alert.firing",
        "feature_drift",
        True,
    )


def test_the_signature_is_that_of_other_implementations() -> None:
    """The example in Svix's documentation, "Verifying webhooks manually", and in the tests of its libraries."""
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    known = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    assert signature(known, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}') == expected


def test_without_a_secret_nothing_is_signed() -> None:
    receiver = Receiver(204)
    delivered(receiver, [EVENT], 1, signed_with=None)
    assert "webhook-signature" not in receiver.got[0].headers


def test_what_fails_is_posted_again_and_the_next_comes_after_it() -> None:
    receiver = Receiver(0, 500, 200)
    delivered(receiver, [EVENT, EVENT], 4)
    assert [len(receiver.got), receiver.got[0].content] == [4, receiver.got[3].content]


def test_a_receiver_that_never_answers_well_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    receiver = Receiver(410)
    delivered(receiver, [EVENT, EVENT], 6)
    assert "the webhook never took firing of feature_drift" in caplog.text
    assert "status 410" in caplog.text


def test_offering_never_waits(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(webhook, "WAITING", 2)
    hook = Webhook("http://example.test", None)
    for _ in range(3):
        hook.offer(EVENT)
    assert caplog.text.count("is not posted") == 1


def test_what_an_address_did_not_take_is_posted_to_the_next_one() -> None:
    receiver = Receiver(500, 200)

    async def moving(request: httpx2.Request) -> httpx2.Response:
        hook.aim("http://new.test/hook", KEY)
        return await receiver(request)

    def client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(moving))

    hook = Webhook("http://old.test/hook", None, client, lambda: NOW)

    async def run() -> None:
        hook.offer(EVENT)
        hook.offer(EVENT)
        task = asyncio.create_task(hook.deliver_forever())
        await asyncio.wait_for(receiver.has(3), 10)
        task.cancel()

    asyncio.run(run())
    assert [request.url.host for request in receiver.got] == ["old.test", "new.test", "new.test"]
    assert ["webhook-signature" in request.headers for request in receiver.got] == [False, True, True]


def test_what_waits_when_there_is_no_address_any_more_is_dropped_and_the_log_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    receiver = Receiver(200)

    async def run() -> None:
        hook = Webhook("http://old.test/hook", None, lambda: client_of(receiver), lambda: NOW)
        hook.offer(EVENT)
        hook.aim(None, None)
        hook.offer(EVENT)
        task = asyncio.create_task(hook.deliver_forever())
        while "is not posted" not in caplog.text:  # noqa: ASYNC110  nobody tells of it
            await asyncio.sleep(0)
        hook.aim("http://new.test/hook", None)
        hook.offer(EVENT)
        await asyncio.wait_for(receiver.has(1), 10)
        task.cancel()

    asyncio.run(asyncio.wait_for(run(), 30))
    assert caplog.text.count("is not posted") == 1
    assert [request.url.host for request in receiver.got] == ["new.test"]


@pytest.mark.parametrize(
    ("url", "secret"), [("http://example.test:84a/hook", KEY), ("http://example.test/hook", "whsec_abc")]
)
def test_an_address_or_a_secret_that_cannot_be_used_ends_nothing(
    url: str, secret: str, caplog: pytest.LogCaptureFixture
) -> None:
    receiver = Receiver(200)
    hook = Webhook(url, secret, lambda: client_of(receiver), lambda: NOW)

    async def run() -> None:
        task = asyncio.create_task(hook.deliver_forever())
        hook.offer(EVENT)
        while "firing of feature_drift" not in caplog.text:  # noqa: ASYNC110  nobody tells
            await asyncio.sleep(0.01)
        hook.aim("http://example.test/hook", KEY)
        hook.offer(EVENT)
        await asyncio.wait_for(receiver.has(1), 10)
        task.cancel()

    asyncio.run(run())
    assert "84a" not in caplog.text
    assert "whsec_abc" not in caplog.text
