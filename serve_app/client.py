"""A client of the HTTP API, for scripts and trading systems: retries what may be retried, and nothing else."""

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Self

import httpx2

from serve_app.documentation import bars_as_columns
from serve_app.schemas import REQUEST_ID
from serve_app.types import Bars

RETRIED = {429, 503}
"""Statuses that say "later": the service sends Retry-After with them."""


class RequestRefused(Exception):
    """The service answered with an error: `status`, `code`, `detail` (with `fallback_action`) and `request_id`."""

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(status, document)
        self.status = status
        self.code: str = document.get("code", "")
        self.detail: dict[str, Any] = document.get("detail", {})
        self.request_id: str = document.get("request_id", "")

    def __str__(self) -> str:
        status, document = self.args
        return f"{status} {self.code}: {document.get('error', '')}"


def signal_body(symbol: str, bars: Bars, position: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the body of `POST /v1/signals` for the bars of a symbol, oldest first."""
    body: dict[str, Any] = {"symbol": symbol, "bars": bars_as_columns(bars)}
    return body if position is None else {**body, "position": dict(position)}


class SignalClient:
    """Calls one SignalGraph service; a context manager that closes its connections."""

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        attempts: int = 3,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = httpx2.Client(base_url=url, headers=headers, timeout=timeout_s)
        self._attempts = attempts
        self._sleep = sleep

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def signal(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return one decision. Raises RequestRefused."""
        return self._call("POST", "/v1/signals", body)

    def signals(self, bodies: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return decisions or error documents, in the order of the bodies. Raises RequestRefused."""
        results: list[dict[str, Any]] = self._call("POST", "/v1/signals:batch", {"requests": list(bodies)})["results"]
        return results

    def monitor(self) -> dict[str, Any]:
        """Return what the monitor counted. Raises RequestRefused."""
        return self._call("GET", "/v1/monitor", None)

    def releases(self) -> dict[str, Any]:
        """Return the release in force, and how it came to be. Raises RequestRefused."""
        return self._call("GET", "/v1/releases", None)

    def preview(self, body: Mapping[str, Any]) -> list[dict[str, str]]:
        """Return which symbols a split would move. Raises RequestRefused."""
        moves: list[dict[str, str]] = self._call("POST", "/v1/releases:preview", body)["moves"]
        return moves

    def change_release(self, change: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Split, promote, roll back …; the client's key must be the control key. Raises RequestRefused.

        Never asks twice: a promotion whose answer was lost would be undone by the next.
        """
        return self._call("POST", f"/v1/releases:{change}", body, attempts=1)

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, attempts: int | None = None
    ) -> dict[str, Any]:
        # One id for all attempts: they are one request, with one decision id.
        headers = {REQUEST_ID: uuid.uuid4().hex}
        last = attempts or self._attempts
        for attempt in range(1, last + 1):
            response = self._http.request(method, path, json=body, headers=headers)
            if response.status_code not in RETRIED or attempt == last:
                break
            self._sleep(_retry_after_s(response.headers.get("Retry-After", "1")))
        document = _document(response)
        if response.is_success:
            return document
        raise RequestRefused(response.status_code, document)


def _retry_after_s(value: str) -> float:
    """Seconds to wait: the header holds them, or the date to come back."""
    try:
        return max(0.0, float(value))
    except ValueError:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())


def _document(response: httpx2.Response) -> dict[str, Any]:
    """The body; a proxy in between answers errors of its own as text."""
    try:
        document = response.json()
    except ValueError:
        document = None
    return document if isinstance(document, dict) else {"error": response.text[:200]}
