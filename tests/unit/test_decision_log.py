"""One line for each decision, a file for each router, files that are turned over, and nobody who waits for a disk."""

import asyncio
import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.config import DecisionLogConfig
from serve_app.decision_log import WAITING, DecisionLog, Given
from serve_app.errors import BundleCorrupt, ConfigError, ServeAppError, UnknownSymbol
from serve_app.identity import decision_id
from serve_app.types import Decision, Reason
from tests.unit.monitor.answers import decision

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NAMES = ("open", "high", "low", "close", "volume", "vwap")


def config(folder: Path, **changes: Any) -> DecisionLogConfig:
    return DecisionLogConfig(folder=str(folder), **changes)


def given(answer: Decision | ServeAppError, request_id: str = "r1") -> Given:
    return Given(NOW, request_id, answer, 3.21)


def made(n: int, **changes: Any) -> list[Decision]:
    return [decision(decision_id=decision_id("a request", i), **changes) for i in range(n)]


def lines(folder: Path, name: str = "decisions-0.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def test_a_line_says_what_was_decided_and_from_what(tmp_path: Path) -> None:
    log = DecisionLog(config(tmp_path), lambda _: NAMES)
    (one,) = made(1, seen=np.arange(6, dtype=np.float32))
    log.add([given(one)])
    log.close()
    assert lines(tmp_path) == [
        {
            "timestamp": "2026-03-01T12:00:00Z",
            "request_id": "r1",
            "latency_ms": 3.21,
            "decision_id": one.decision_id,
            "symbol": "IBM",
            "bar": "2013-03-01T00:00:00Z",
            "prediction": 0.6,
            "action": "HOLD",
            "reason": None,
            "variant": "production",
            "model_version": "v1.0",
            "bundle_digest": "sha256:0",
            "epoch": 1,
            "features_summary": {"open": 0.0, "high": 1.0, "low": 2.0, "close": 3.0, "volume": 4.0},
        }
    ]


def test_an_abstention_has_its_reason_and_no_features(tmp_path: Path) -> None:
    log = DecisionLog(config(tmp_path), lambda _: NAMES)
    log.add([given(one) for one in made(1, reason=Reason.DEADLINE)])
    log.close()
    (line,) = lines(tmp_path)
    assert (line["reason"], line["prediction"], line["features_summary"]) == ("deadline", None, {})


def test_a_feature_that_the_client_lacked_is_null(tmp_path: Path) -> None:
    log = DecisionLog(config(tmp_path), lambda _: NAMES)
    log.add([given(one) for one in made(1, seen=np.array([np.nan, 1], dtype=np.float32))])
    log.close()
    assert lines(tmp_path)[0]["features_summary"] == {"open": None, "high": 1.0}


def test_an_error_is_logged_under_the_id_of_its_request_whatever_the_share(tmp_path: Path) -> None:
    log = DecisionLog(config(tmp_path, share=0.0), lambda _: NAMES)
    log.add([given(UnknownSymbol("no model knows FB", symbol="FB"), "r7"), *map(given, made(20))])
    log.close()
    (line,) = lines(tmp_path)
    assert (line["request_id"], line["error"], line["message"]) == ("r7", "unknown_symbol", "no model knows FB")


def test_a_share_is_of_the_decisions_and_the_same_in_every_router(tmp_path: Path) -> None:
    logs = [DecisionLog(config(tmp_path, share=0.3), lambda _: NAMES) for _ in range(2)]
    answers = made(2_000)
    for log in logs:
        log.add(map(given, answers))
        log.flush()
    first, second = ([one["decision_id"] for one in lines(tmp_path, f"decisions-{n}.jsonl")] for n in range(2))
    assert first == second
    assert len(first) == pytest.approx(600, abs=90)
    for log in logs:
        log.close()


def test_a_router_that_comes_back_goes_on_in_the_file_that_is_free(tmp_path: Path) -> None:
    first, second = (DecisionLog(config(tmp_path), lambda _: NAMES) for _ in range(2))
    first.close()
    third = DecisionLog(config(tmp_path), lambda _: NAMES)
    for log in (second, third):
        log.add(map(given, made(1)))
        log.close()
    assert [len(lines(tmp_path, f"decisions-{n}.jsonl")) for n in range(2)] == [1, 1]
    assert not (tmp_path / "decisions-2.jsonl").exists()


def test_files_are_turned_over_and_the_oldest_go(tmp_path: Path) -> None:
    log = DecisionLog(config(tmp_path, max_bytes=2_000, files=2), lambda _: NAMES)
    log.add(map(given, made(100)))
    log.close()
    files = sorted(path.name for path in tmp_path.glob("*.jsonl*"))
    assert files == ["decisions-0.jsonl", "decisions-0.jsonl.1", "decisions-0.jsonl.2"]
    assert all((tmp_path / name).stat().st_size <= 2_000 for name in files)
    assert all(lines(tmp_path, name) for name in files)


def test_what_does_not_fit_is_dropped_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog(config(tmp_path), lambda _: NAMES)
    log.add(map(given, made(WAITING + 3)))
    with caplog.at_level(logging.WARNING):
        log.flush()
    assert "3 lines of the decision log were dropped" in caplog.text
    assert len(lines(tmp_path)) == WAITING
    log.close()


def test_a_folder_that_cannot_be_written_is_said_by_the_key_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ConfigError, match=r"monitor\.log\.folder: .*file cannot be written"):
        DecisionLog(config(tmp_path / "file"), lambda _: NAMES)


def test_a_bundle_that_has_gone_costs_the_names_and_no_line(tmp_path: Path) -> None:
    def gone(digest: str) -> tuple[str, ...]:
        raise BundleCorrupt(digest)

    log = DecisionLog(config(tmp_path), gone)
    log.add([given(one) for one in made(3, seen=np.zeros(6, dtype=np.float32))])
    log.close()
    assert [line["features_summary"] for line in lines(tmp_path)] == [{}] * 3


def test_a_disk_that_fails_once_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = DecisionLog(config(tmp_path), lambda _: NAMES)
    failures = [OSError("no space")]

    async def for_a_while() -> None:
        written, loop = asyncio.Event(), asyncio.get_running_loop()

        def flush() -> None:
            if failures:
                raise failures.pop()
            loop.call_soon_threadsafe(written.set)

        log.flush = flush  # type: ignore[method-assign]
        task = asyncio.create_task(log.write_forever(0.0))
        await written.wait()
        task.cancel()

    asyncio.run(for_a_while())
    assert "the decision log could not be written" in caplog.text
