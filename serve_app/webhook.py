"""Alerts to elsewhere: each event is posted as JSON, signed as the Standard Webhooks say, and again if that fails.

https://www.standardwebhooks.com: the headers `webhook-id`, `webhook-timestamp` and `webhook-signature`, which is
`v1,` and the base64 of the HMAC-SHA256 of `{id}.{timestamp}.{body}`.
"""

import asyncio
import base64
import hashlib
import hmac
import logging
from collections.abc import Callable
from datetime import UTC, datetime

import httpx2

from serve_app.errors import ConfigError
from serve_app.monitor import Alert
from serve_app.schemas import encode

WAITING = 1_000
"""Events that may wait; more are dropped, and the log says so. They are in the journal all the same."""
WAITS_S = (1.0, 5.0, 30.0, 120.0)
"""Before the second attempt and those after it."""
TIMEOUT_S = 10.0
_PREFIX = "whsec_"

log = logging.getLogger(__name__)


def key_of(secret: str) -> bytes:
    """Return what a secret signs with: one of `whsec_…` is base64, any other the text itself. Raises ConfigError."""
    if not secret.startswith(_PREFIX):
        return secret.encode()
    try:
        return base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except ValueError as error:
        raise ConfigError(f"the webhook's secret begins with {_PREFIX} and is not base64 after it: {error}") from error


def signature(secret: str, identity: str, timestamp: int, body: bytes) -> str:
    """Return the value of `webhook-signature`. Raises as `key_of`."""
    signed = hmac.new(key_of(secret), f"{identity}.{timestamp}.".encode() + body, hashlib.sha256)
    return f"v1,{base64.b64encode(signed.digest()).decode()}"


class Webhook:
    """Posts events to one address at a time, in their order. Whoever offers one waits for nothing."""

    def __init__(
        self,
        url: str | None,
        secret: str | None,
        client: Callable[[], httpx2.AsyncClient] = lambda: httpx2.AsyncClient(timeout=TIMEOUT_S),
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`url`: None posts nothing."""
        self._url = url
        self._secret = secret
        self._client = client
        self._clock = clock
        self._waiting: asyncio.Queue[Alert] = asyncio.Queue(WAITING)

    def aim(self, url: str | None, secret: str | None) -> None:
        """Post to another address from now on, also what waits; when there is none any more, that is dropped."""
        self._url, self._secret = url, secret

    def offer(self, event: Alert) -> None:
        """Post an event as soon as may be."""
        if self._url is None:
            return
        if not self._waiting.full():
            self._waiting.put_nowait(event)
        else:
            log.error("too many alerts wait for the webhook: %s of %s is not posted", event.state, event.alert)

    async def deliver_forever(self) -> None:
        """Post what is offered, until cancelled."""
        async with self._client() as client:
            while True:
                event = await self._waiting.get()
                try:
                    await self._deliver(client, event)
                except Exception as error:  # noqa: BLE001  no trace: it may hold the address, and with it a token
                    log.error("%s of %s is not posted: %s", event.state, event.alert, type(error).__name__)  # noqa: TRY400

    async def _deliver(self, client: httpx2.AsyncClient, event: Alert) -> None:
        for wait in (*WAITS_S, None):
            if self._url is None:
                log.warning("there is no webhook any more: %s of %s is not posted", event.state, event.alert)
                return
            failure = await self._post(client, self._url, event)
            if failure is None:
                return
            log.warning("the webhook did not take %s of %s: %s", event.state, event.alert, failure)
            if wait is not None:
                await asyncio.sleep(wait)
        log.error("the webhook never took %s of %s", event.state, event.alert)

    async def _post(self, client: httpx2.AsyncClient, url: str, event: Alert) -> str | None:
        """Post once; return what went wrong, if anything."""
        document = {"type": f"alert.{event.state}", "timestamp": event.since, "data": event.document()}
        body = encode({**document, "wants_retraining": event.wants_retraining})
        now = int(self._clock().timestamp())
        headers = {"content-type": "application/json", "webhook-id": event.id, "webhook-timestamp": str(now)}
        if self._secret is not None:
            headers["webhook-signature"] = signature(self._secret, event.id, now, body)
        try:
            answer = await client.post(url, content=body, headers=headers)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            return type(error).__name__  # its text may hold the address, and with it a token
        return None if answer.is_success else f"status {answer.status_code}"
