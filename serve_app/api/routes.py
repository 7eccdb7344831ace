"""The handlers. They read the raw request: a pydantic body parameter costs up to ten times as much on 15 kB."""

import asyncio
import hmac
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from fastapi import Request, Response
from starlette.requests import ClientDisconnect

from serve_app.api.front import Call, Front, bearer_of
from serve_app.api.hot import Handler
from serve_app.api.responses import (
    error_id,
    idempotency_key_of,
    request_id_of,
    respond,
    respond_error,
    respond_unread,
)
from serve_app.errors import BodyTimeout, MalformedRequest, ServeAppError, Unauthorized
from serve_app.identity import by_request
from serve_app.once import identity_of
from serve_app.schemas import (
    STREAM,
    Limits,
    Unreadable,
    decision_document,
    decode_signal,
    error_document,
    parse_arrow,
    parse_batch,
    parse_json,
    parse_predict,
    parse_signal,
    predict_document,
    split_batch,
    what_can_be_read,
)
from serve_app.service import DEFECT, Refused
from serve_app.types import Decision, SignalRequest

CLIENT_CLOSED_REQUEST = 499
"""The status of nginx, and Ray Serve, for it."""

log = logging.getLogger(__name__)


class Routes:
    """The handlers, over one `Front`."""

    def __init__(self, front: Front, clock: Callable[[], float]) -> None:
        self._front = front
        self._clock = clock
        config = front.config
        self._limits = Limits(config.max_body_bytes, config.max_bars, config.max_batch_requests)

    async def authorize(self, request: Request) -> None:
        """Let only known keys pass, when keys are needed."""
        if not self._front.api_key_hashes:
            return
        given = bearer_of(request)
        known = [hmac.compare_digest(given, expected) for expected in self._front.api_key_hashes]
        if not any(known):
            raise Unauthorized("this service needs an API key: send the header `Authorization: Bearer <key>`")

    async def signals(self, request: Request) -> Response:
        """Decide on one symbol, given its bars or its features."""
        return await self._answer_one(request, self._read_signal, decision_document)

    async def signals_batch(self, request: Request) -> Response:
        """Decide on many symbols at once; one unusable request fails alone."""
        started, request_id = self._clock(), request_id_of(request)
        media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
        read = self._read_arrow if media_type == STREAM else self._read_batch
        requests = read(await self._body(request))
        answers = await self._decide(request, request_id, requests, started)
        results = [
            error_document(a.error, request_id) if isinstance(a, Refused) else decision_document(a) for a in answers
        ]
        return respond({"results": results})

    async def predict(self, request: Request) -> Response:
        """Decide on one symbol, in the shape of older clients."""
        return await self._answer_one(request, self._read_predict, lambda d: predict_document(d, datetime.now(UTC)))

    async def monitor(self) -> Response:
        """Tell what has been answered: counts, action mix and latency percentiles per variant."""
        return respond(await self._front.monitor())

    async def alerts(self) -> Response:
        """Tell what is wrong now, and what was: alerts that are pending or fire, and the latest events."""
        known = await self._front.monitor()
        return respond({name: known[name] for name in ("alerts", "events")})

    async def live(self) -> dict[str, bool]:
        """Tell that the process answers."""
        return {"live": True}

    async def ready(self) -> Response:
        """Tell whether every variant has reproduced its golden cases; 503 until then."""
        reasons = self._front.service.readiness()
        ready = not any(reasons.values())
        variants = {str(name): {"ready": reason is None, "reason": reason} for name, reason in reasons.items()}
        return respond({"ready": ready, "variants": variants}, 200 if ready else 503)

    async def guarded(self, handler: Handler, request: Request) -> Response:
        """Answer one of the hot routes, whatever happens. The monitor hears of these alone: it counts decisions."""
        try:
            await self.authorize(request)
            return await handler(request)
        except ServeAppError as error:
            return self._unread(request, error)
        except ClientDisconnect:
            return Response(status_code=CLIENT_CLOSED_REQUEST)  # which nobody is there to read
        except Exception:
            log.exception("a request met a defect")
            return self._unread(request, ServeAppError(DEFECT))

    def _unread(self, request: Request, error: ServeAppError) -> Response:
        """Answer a request of which nothing could be read, and let the monitor know."""
        request_id = error_id(request)
        self._front.record(Call(request_id, [error]))
        return respond_unread(request_id, error)

    async def _answer_one(
        self,
        request: Request,
        read: Callable[[bytes], SignalRequest | Refused],
        document: Callable[[Decision], dict[str, Any]],
    ) -> Response:
        started, request_id = self._clock(), request_id_of(request)
        (answer,) = await self._decide(request, request_id, [read(await self._body(request))], started)
        if isinstance(answer, Refused):
            return respond_error(request_id, answer.error)
        return respond(document(answer))

    async def _body(self, request: Request) -> bytes:
        """Return a body, reading no more of it than is taken, and for no longer than is allowed."""
        patience = self._front.config.body_timeout_s
        try:
            async with asyncio.timeout(patience):
                return await self._read(request)
        except TimeoutError as error:
            raise BodyTimeout(f"the body did not arrive within {patience:g} s; send it at once") from error

    async def _read(self, request: Request) -> bytes:
        # What `request.stream()` does, at a third of its time.
        chunks, size, more = [], 0, True
        while more and size <= self._limits.max_body_bytes:
            message = await request.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnect
            chunk: bytes = message.get("body", b"")
            chunks.append(chunk)
            size += len(chunk)
            more = message.get("more_body", False)
        return b"".join(chunks)

    def _read_signal(self, body: bytes) -> SignalRequest | Refused:
        decoded = decode_signal(body, self._limits)
        return decoded or self._parse_signal(parse_json(body, self._limits))

    def _read_batch(self, body: bytes) -> list[SignalRequest | Refused]:
        bodies = split_batch(body, self._limits)
        if bodies is None:
            return [self._parse_signal(one) for one in parse_batch(parse_json(body, self._limits), self._limits)]
        return [self._read_signal(one) for one in bodies]

    def _read_arrow(self, body: bytes) -> list[SignalRequest | Refused]:
        parsed = parse_arrow(body, self._limits, self._front.service.feature_list)
        return [Refused(one.error, one.symbol, one.position) if isinstance(one, Unreadable) else one for one in parsed]

    def _parse_signal(self, document: Any) -> SignalRequest | Refused:
        return _parsed(parse_signal, document, self._limits)

    def _read_predict(self, body: bytes) -> SignalRequest | Refused:
        return _parsed(parse_predict, parse_json(body, self._limits), self._limits, self._front.service.feature_list)

    async def _decide(
        self, request: Request, request_id: str, requests: Sequence[SignalRequest | Refused], started: float
    ) -> list[Decision | Refused]:
        try:
            answers = await self._decided(request, request_id, requests)
        except ServeAppError as error:  # of the call as a whole; what it said of positions has been read by now
            answers = [self._front.service.with_fallback(_instead(one, error)) for one in requests]
        latency_ms = 1e3 * (self._clock() - started)
        given = [a.error if isinstance(a, Refused) else a for a in answers]
        pairs = zip(requests, answers, strict=True)
        decided = [one for one, a in pairs if isinstance(one, SignalRequest) and isinstance(a, Decision)]
        self._front.record(Call(request_id, given, latency_ms, decided))
        return answers

    async def _decided(
        self, request: Request, request_id: str, requests: Sequence[SignalRequest | Refused]
    ) -> list[Decision | Refused]:
        key = idempotency_key_of(request)
        if key is None:
            return await self._front.service.decide(by_request(request_id), requests)
        if self._front.once is None:
            raise MalformedRequest("without a journal no Idempotency-Key is known again: set `journal`, or send none")
        return await self._front.once.decide(identity_of(bearer_of(request), key), requests)


def _instead(asked: SignalRequest | Refused, error: ServeAppError) -> Refused:
    """Return the refusal of one request of a call that failed as a whole; its own reason comes first."""
    return asked if isinstance(asked, Refused) else Refused(error, asked.symbol, asked.position)


def _parsed(parse: Callable[..., SignalRequest], document: Any, *rules: Any) -> SignalRequest | Refused:
    try:
        return parse(document, *rules)
    except ServeAppError as error:
        return Refused(error, *what_can_be_read(document))
    except Exception:
        log.exception("a request could not be parsed: a defect")
        return Refused(ServeAppError(DEFECT), *what_can_be_read(document))
