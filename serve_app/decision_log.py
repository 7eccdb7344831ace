"""One JSON object a line for each decision, for log shippers and people with `jq`. The journal is what proves anything.

Plain `logging` and orjson in place of structlog or Ray's JSON logging: a share of the decisions has to be chosen by
their ids, and a line has to stay out of the log of the process, whose level is WARNING.
"""

import asyncio
import fcntl
import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import count
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from serve_app.config import DecisionLogConfig
from serve_app.errors import ConfigError, ServeAppError
from serve_app.types import Decision

FEATURES = 5
"""Of each decision, the first ones."""
WAITING = 20_000
"""Lines that wait to be written; what does not fit is dropped and counted."""

log = logging.getLogger(__name__)


class JsonLines:
    """A file of JSON objects, one a line; a file that would get too large is renamed `….1`, and so on."""

    def __init__(self, path: str | Path, max_bytes: int, files: int) -> None:
        """`files`: older files that are kept."""
        self._handler = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=files, delay=True)

    def write(self, document: Mapping[str, Any]) -> None:
        """Write a line; times as ISO 8601 with Z."""
        self._handler.handle(logging.makeLogRecord({"msg": orjson.dumps(document, option=orjson.OPT_UTC_Z).decode()}))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class Given(NamedTuple):
    """One answer, to the request of an id."""

    at: datetime
    request_id: str
    answer: Decision | ServeAppError
    latency_ms: float


class DecisionLog:
    """The log of one router. `add` never waits; `flush` writes, in a thread."""

    def __init__(self, config: DecisionLogConfig, names: Callable[[str], Sequence[str]]) -> None:
        """`names` returns the features of a bundle by its digest. Raises ConfigError for an unusable folder."""
        self._share = config.share
        self._names = names
        self._known: dict[str, Sequence[str]] = {}
        self._waiting: deque[Given] = deque()
        self._dropped = 0
        self._writing = threading.Lock()
        """A flush in a thread goes on when whoever awaited it was cancelled."""
        try:
            path, self._lock = _own_file(Path(config.folder))
        except OSError as error:
            raise ConfigError(f"monitor.log.folder: {config.folder} cannot be written: {error.strerror}") from error
        self._lines = JsonLines(path, config.max_bytes, config.files)

    def add(self, given: Iterable[Given]) -> None:
        """Remember answers for the next `flush`: every error, and the decisions that fall into the share."""
        for one in given:
            if isinstance(one.answer, Decision) and not one.answer.is_drawn(self._share):
                continue
            if len(self._waiting) < WAITING:
                self._waiting.append(one)
            else:
                self._dropped += 1

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            if self._dropped:
                log.warning("%d lines of the decision log were dropped: its disk is too slow", self._dropped)
                self._dropped = 0
            for _ in range(len(self._waiting)):
                self._lines.write(self._line(self._waiting.popleft()))

    async def write_forever(self, every_s: float) -> None:
        """Flush again and again, until cancelled. Nobody's answer hangs on a line of a log."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await asyncio.to_thread(self.flush)
            except Exception:  # whatever it was: the next lines may be written again
                log.exception("the decision log could not be written")

    def close(self) -> None:
        """Write what waits, and let go of the file."""
        self.flush()
        self._lines.close()
        os.close(self._lock)

    def _line(self, given: Given) -> dict[str, Any]:
        line = {"timestamp": given.at, "request_id": given.request_id, "latency_ms": round(given.latency_ms, 3)}
        if isinstance(given.answer, ServeAppError):
            return {**line, "error": given.answer.code, "message": str(given.answer)}
        decision = given.answer
        return {
            **line,
            "decision_id": decision.decision_id,
            "symbol": decision.symbol,
            "bar": decision.timestamp,
            "prediction": decision.probability,
            "action": decision.action,
            "reason": decision.reason,
            "variant": decision.variant,
            "model_version": decision.model_version,
            "bundle_digest": decision.bundle_digest,
            "epoch": decision.epoch,
            "features_summary": self._features(decision),
        }

    def _features(self, decision: Decision) -> dict[str, float]:
        """Return the first features of the last bar, scaled as the model saw them."""
        if decision.seen is None:
            return {}
        if decision.bundle_digest not in self._known:
            self._known[decision.bundle_digest] = self._names_of(decision.bundle_digest)[:FEATURES]
        return dict(zip(self._known[decision.bundle_digest], decision.seen.tolist(), strict=False))

    def _names_of(self, digest: str) -> Sequence[str]:
        try:
            return self._names(digest)
        except ServeAppError as error:  # a folder that has gone since it was loaded
            log.warning("the decision log has no features of %s: %s", digest, error)
            return ()


def _own_file(folder: Path) -> tuple[Path, int]:
    """Return the first file that no other process has, and what keeps it ours: files of the past are written on."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in count():
        lock = os.open(folder / f"decisions-{number}.lock", os.O_CREAT | os.O_RDWR, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return folder / f"decisions-{number}.jsonl", lock
    raise AssertionError("numbers do not end")
