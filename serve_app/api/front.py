"""What the API is put together from."""

import hashlib
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import FastAPI, Request

from serve_app.api.decisions import Past
from serve_app.config import RouterConfig
from serve_app.control import Control
from serve_app.dashboard import Sources
from serve_app.documentation import Examples
from serve_app.errors import ServeAppError
from serve_app.evidence import Experiments
from serve_app.identity import Identify
from serve_app.once import Once
from serve_app.service import Refused
from serve_app.types import Decision, SignalRequest


class Service(Protocol):
    """What the routes need of a signal service."""

    async def decide(self, identify: Identify, requests: Sequence[SignalRequest | Refused]) -> list[Decision | Refused]:
        """Answer requests in their order."""

    def with_fallback(self, refused: Refused) -> Refused:
        """Add the action that needs no model."""

    def feature_list(self, symbol: str) -> Collection[str]:
        """Return the columns that make rows the features of a symbol."""

    def readiness(self) -> dict[str, str | None]:
        """For each variant, why it may not serve yet, or None."""


@dataclass(frozen=True, slots=True)
class Call:
    """What was asked with one call, and what was answered."""

    request_id: str
    answers: Sequence[Decision | ServeAppError]
    latency_ms: float = 0.0
    decided: Sequence[SignalRequest] = ()
    """The requests that led to a decision."""


@dataclass(frozen=True, slots=True)
class Front:
    """What `create_api` puts together."""

    service: Service
    config: RouterConfig
    examples: Examples
    record: Callable[[Call], None]
    """Takes one call for the monitor; never waits."""
    monitor: Callable[[], Awaitable[dict[str, Any]]]
    api_key_hashes: Collection[str] = ()
    """SHA-256 of each key that may ask; empty when no key is needed."""
    past: Past | None = None
    """Decisions of the past; None when no journal keeps them."""
    once: Once | None = None
    """Answers requests under an idempotency key; None when there is no journal."""
    experiments: Experiments | None = None
    """What is known of candidates; None when there is no journal."""
    control: Control | None = None
    """Of the releases; None when no ledger keeps them."""
    control_key_hash: str | None = None
    dashboard: Sources | None = None
    """What people look at; None: nobody can."""
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None


def hash_key(key: str) -> str:
    """Return what is kept of an API key."""
    return hashlib.sha256(key.encode()).hexdigest()


def bearer_of(request: Request) -> str:
    """Return the hash of the key that came with a request, of no key if none did."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")
    return hash_key(key.strip() if scheme.lower() == "bearer" else "")
