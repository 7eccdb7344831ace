"""What the parts of the path of a request cost in a process of their own: no Ray, no HTTP, nobody else on the core."""

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.types import ASGIApp, Message

from benchmarks.systems import features_body
from benchmarks.workload import questions, reference
from deployments.batching import Batcher, Limits
from serve_app.api import Front, create_api
from serve_app.config import BatchingConfig, ModelConfig, RouterConfig
from serve_app.doctor.speed import rows_per_s
from serve_app.documentation import examples_of
from serve_app.monitor import Gathering
from serve_app.parity import golden_requests
from serve_app.pipeline import Pipeline, local_stages, model_of, preprocess_of
from serve_app.router import Assignment
from serve_app.schemas import Limits as BodyLimits
from serve_app.schemas import decode_signal
from serve_app.service import Lane, SignalService
from serve_app.types import VariantName

TOGETHER = 16
"""Requests at once, and rows of a batch: what one of two routers cuts at 64 connections."""
PASSES = 5
PASS_S = 0.2
REQUESTS = 2_000
US = 1e6


def repeated(call: Callable[[], object], rows: int = 1) -> float:
    """Return µs a row of a call: the median of some passes, each of which repeats it for a while."""
    call()
    passes = []
    for _ in range(PASSES):
        started, n = time.perf_counter(), 0
        while time.perf_counter() - started < PASS_S:
            call()
            n += 1
        passes.append(US * (time.perf_counter() - started) / n / rows)
    return statistics.median(passes)


async def ask(app: ASGIApp, body: bytes) -> int:
    """Send a request for a decision as uvicorn would, and return the status."""
    statuses: list[int] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await app({"type": "http", "method": "POST", "path": "/v1/signals", "headers": []}, receive, send)
    return statuses[0]


async def whole(app: ASGIApp, together: int) -> float:
    """Return µs a request of everything that a router does, so many requests at once."""
    bodies = [features_body(question) for question in questions()]

    async def caller(first: int) -> None:
        for i in range(REQUESTS // together):
            status = await asyncio.create_task(ask(app, bodies[(first + i) % len(bodies)]))
            assert status == 200, status

    passes = []
    for _ in range(PASSES):
        started = time.perf_counter()
        await asyncio.gather(*(caller(k) for k in range(together)))
        passes.append(US * (time.perf_counter() - started) / (REQUESTS // together * together))
    return statistics.median(passes)


def router(pipeline: Pipeline) -> tuple[ASGIApp, Callable[[], Awaitable[bool]]]:
    """Return the application of a router with one variant, and what proves it."""
    batching = BatchingConfig()
    limits = Limits(batching.max_batch_size, batching.max_in_flight, max_queued_rows=1_000, deadline_s=1.0)
    batcher = Batcher(pipeline.run, pipeline.abstain, limits)
    service = SignalService({VariantName.PRODUCTION: Lane(pipeline, batcher.submit)}, Assignment())
    told = Gathering("router", 10_000, dict)
    bundle = pipeline.bundle

    async def monitor() -> dict[str, Any]:
        return {}

    golden = golden_requests(bundle.golden, pipeline.feature_set, bundle.config.strategy.holding_unit)
    front = Front(
        service=service,
        config=RouterConfig(),
        examples=examples_of(golden),
        record=lambda call: told.record(call.answers, call.latency_ms),
        monitor=monitor,
    )
    return create_api(front), service.prove


async def _requests(pipeline: Pipeline) -> dict[str, float]:
    app, prove = router(pipeline)
    assert await prove(), "the reference bundle does not reproduce its golden cases"
    return {
        f"a whole request, {TOGETHER} at once": await whole(app, TOGETHER),
        "a whole request, alone": await whole(app, 1),
    }


def parts() -> dict[str, float]:
    """Return µs a request of each part, and of all of them together."""
    bundle, config = reference(), RouterConfig()
    pipeline = Pipeline(bundle, local_stages(bundle, ModelConfig()))
    preprocess, model = preprocess_of(bundle), model_of(bundle, ModelConfig())
    limits = BodyLimits(config.max_body_bytes, config.max_bars, config.max_batch_requests)
    body = features_body(questions()[0])
    request = decode_signal(body, limits)
    assert request is not None, "the workload is not of the usual kind"
    rows = [pipeline.row(request)] * TOGETHER
    return {
        "decode": repeated(lambda: decode_signal(body, limits)),
        "validate": repeated(lambda: pipeline.row(request)),
        f"preprocess, {TOGETHER} rows": repeated(lambda: preprocess.windows(pipeline.stack(rows)), TOGETHER),
        f"model, {TOGETHER} rows": US / rows_per_s(bundle, model, TOGETHER),
        "model, alone": US / rows_per_s(bundle, model, 1),
        **asyncio.run(_requests(pipeline)),
    }
