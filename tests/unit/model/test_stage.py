import asyncio
import threading
import time
import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from serve_app.batches import WindowBatch
from serve_app.config import ModelConfig
from serve_app.errors import OutOfMemory, StageFailed
from serve_app.model import Bundle, golden, load_bundle
from serve_app.model.predictors.network import TorchNetwork
from serve_app.model.stage import STUCK_S, Model
from serve_app.pipeline import Pipeline, model_of
from serve_app.types import Bars, Float32Array, Reason, Runtime
from tests.factories import CANDIDATE, PRODUCTION, in_torch, real_requests, values, with_stages
from tests.unit.hanging import given_up, hanging


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle)


@pytest.fixture(scope="module")
def golden_batch(bundle: Bundle) -> WindowBatch:
    return golden.golden_batch(bundle, len(bundle.golden.symbols))


def test_golden_windows_give_golden_logits_and_probabilities(
    model: Model, bundle: Bundle, golden_batch: WindowBatch
) -> None:
    predictions = model.predict(golden_batch)
    assert predictions.digest == bundle.digest
    assert predictions.logits.dtype == np.float32
    assert predictions.logits.shape == (12,)
    np.testing.assert_allclose(predictions.logits, bundle.golden.logits, atol=1e-6)
    np.testing.assert_allclose(predictions.probabilities, bundle.golden.probabilities, atol=1e-6)


def test_every_call_gives_the_same_since_dropout_is_off(model: Model, golden_batch: WindowBatch) -> None:
    np.testing.assert_array_equal(model.forward(golden_batch), model.forward(golden_batch))


def test_the_asset_matters(model: Model, golden_batch: WindowBatch) -> None:
    others = replace(golden_batch, asset_ids=(golden_batch.asset_ids + 1) % 4)
    assert (model.forward(others) != model.forward(golden_batch)).all()


def test_arrays_that_came_over_a_hop_may_be_read_only(model: Model, golden_batch: WindowBatch) -> None:
    windows, ids = golden_batch.windows.copy(), golden_batch.asset_ids.copy()
    windows.flags.writeable = ids.flags.writeable = False
    np.testing.assert_array_equal(
        model.forward(WindowBatch(golden_batch.digest, windows, ids)), model.forward(golden_batch)
    )


def test_the_weights_of_a_bundle_are_copied(bundle: Bundle, golden_batch: WindowBatch) -> None:
    weights = {name: x.copy() for name, x in bundle.weights.items()}
    model = Model(replace(in_torch(bundle), weights=weights))
    before = model.forward(golden_batch)
    for x in weights.values():
        x[...] = 0
    np.testing.assert_array_equal(model.forward(golden_batch), before)


class Watched(Model):
    """Notes in which thread each pass runs, and takes a millisecond a row by its own clock."""

    def __init__(self, bundle: Bundle, ms_a_row: float) -> None:
        self.now = 0.0
        self.threads: list[str] = []
        self._ms_a_row = ms_a_row
        super().__init__(bundle, clock=lambda: self.now)

    def forward(self, batch: WindowBatch) -> Float32Array:
        self.threads.append(threading.current_thread().name)
        self.now += len(batch) * self._ms_a_row / 1e3
        return super().forward(batch)


HERE, APART = "MainThread", "model_0"


@pytest.mark.parametrize(
    ("ms_a_row", "runs_in"),
    [(3, [HERE, HERE, APART, APART]), (1, [HERE, HERE, HERE, APART]), (10.1, [APART, APART, APART, APART])],
)
def test_only_what_is_over_within_two_switch_intervals_of_the_interpreter_runs_on_the_event_loop(
    bundle: Bundle, ms_a_row: float, runs_in: list[str]
) -> None:
    model = Watched(bundle, ms_a_row)
    model.warm_up(bundle, 32)
    model.threads.clear()
    for rows in (1, 2, 8, 16):
        asyncio.run(model.run(golden.golden_batch(bundle, rows)))
    assert model.threads == runs_in


class HeldUp(Watched):
    """A model whose every other pass something else on the machine holds up for a second."""

    def forward(self, batch: WindowBatch) -> Float32Array:
        self.now += len(self.threads) % 2
        return super().forward(batch)


def test_a_pass_that_something_else_held_up_does_not_make_a_size_slow(bundle: Bundle) -> None:
    model = HeldUp(bundle, 0.1)
    model.warm_up(bundle, 1)
    model.threads.clear()
    asyncio.run(model.run(golden.golden_batch(bundle, 1)))
    assert model.threads == [HERE]


def test_a_model_that_is_not_warm_never_runs_on_the_event_loop(bundle: Bundle, golden_batch: WindowBatch) -> None:
    model = Watched(bundle, 0.0)
    asyncio.run(model.run(golden_batch))
    assert model.threads == [APART]


def test_a_quick_batch_does_not_overtake_one_that_runs_apart(bundle: Bundle) -> None:
    model = Watched(bundle, 1.0)
    model.warm_up(bundle, 32)
    model.threads.clear()

    async def both() -> None:
        await asyncio.gather(*(model.run(golden.golden_batch(bundle, rows)) for rows in (16, 1)))

    asyncio.run(both())
    assert model.threads == [APART, APART]


def test_a_pass_that_never_comes_back_is_seen_though_every_caller_gives_up(bundle: Bundle) -> None:
    model = Watched(bundle, 0.0)
    batch = golden.golden_batch(bundle, 1)
    with hanging(model) as hangs:
        asyncio.run(given_up(model.run(batch), hangs))
        model.check_health()
        model.now += STUCK_S + 1
        asyncio.run(given_up(model.run(batch), hangs))
        with pytest.raises(StageFailed, match="has not come back for 60 s"):
            model.check_health()


def test_nothing_runs_on_the_event_loop_beside_a_pass_that_hangs(bundle: Bundle) -> None:
    model = Watched(bundle, 3.0)
    model.warm_up(bundle, 32)
    model.threads.clear()
    with hanging(model) as hangs:
        asyncio.run(given_up(model.run(golden.golden_batch(bundle, 16)), hangs))
        asyncio.run(given_up(model.run(golden.golden_batch(bundle, 1)), hangs))
    assert model.threads == [APART]


def test_a_pass_that_came_back_is_healthy_however_long_ago(bundle: Bundle, golden_batch: WindowBatch) -> None:
    model = Watched(bundle, 1.0)
    asyncio.run(model.run(golden_batch))
    model.now += STUCK_S + 1
    model.check_health()


@pytest.mark.parametrize("runtime", [Runtime.TORCH, Runtime.ONNX])
def test_both_ways_give_the_same_probabilities(bundle: Bundle, runtime: Runtime) -> None:
    here, apart = (Model(bundle, ModelConfig(runtime=runtime), clock=clock) for clock in (lambda: 0.0, time.monotonic))
    here.warm_up(bundle, 1)
    batch = golden.golden_batch(bundle, 1)
    first, second = (asyncio.run(model.run(batch)) for model in (here, apart))
    np.testing.assert_array_equal(first.probabilities, second.probabilities)


@pytest.mark.parametrize("runtime", [Runtime.TORCH, Runtime.ONNX])
@pytest.mark.parametrize(
    "cut", [(slice(0), slice(0)), (slice(3), slice(4)), (slice(4), slice(0)), (slice(0), slice(4))]
)
def test_a_batch_that_is_empty_or_torn_is_refused_and_the_process_lives(
    bundle: Bundle, golden_batch: WindowBatch, runtime: Runtime, cut: tuple[slice, slice]
) -> None:
    torn = WindowBatch(golden_batch.digest, golden_batch.windows[cut[0]], golden_batch.asset_ids[cut[1]])
    with pytest.raises(StageFailed, match=r"this model takes one or more of \(24, 23\) each"):
        Model(bundle, ModelConfig(runtime=runtime)).forward(torn)


class NotANumber(Model):
    """Its logit is NaN, or infinite, for the asset with id 2."""

    value = np.nan

    def forward(self, batch: WindowBatch) -> Float32Array:
        logits = super().forward(batch)
        logits[batch.asset_ids == 2] = self.value
        return logits


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("runtime", [Runtime.TORCH, Runtime.ONNX])
def test_a_window_that_is_not_finite_has_no_logit_whatever_the_runtime_makes_of_it(
    bundle: Bundle, golden_batch: WindowBatch, runtime: Runtime, value: float
) -> None:
    windows = golden_batch.windows.copy()
    windows[3, 5, 20] = value
    model = Model(bundle, ModelConfig(runtime=runtime))
    logits = model.forward(replace(golden_batch, windows=windows))
    assert np.isnan(logits).nonzero()[0].tolist() == [3]
    np.testing.assert_allclose(np.delete(logits, 3), np.delete(bundle.golden.logits, 3), atol=1e-6)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_whose_logit_is_not_finite_abstains_alone(
    bundle: Bundle, pipeline: Pipeline, bars: dict[str, Bars], value: float
) -> None:
    model = NotANumber(bundle)
    model.value = value
    sick = with_stages(pipeline, model=model.run)
    rows = [sick.row(request) for request in real_requests(bars, 16)]
    outcomes = asyncio.run(sick.run(rows))
    unavailable = Reason.MODEL_UNAVAILABLE
    assert values(outcomes, "reason") == [unavailable if row.asset_id == 2 else None for row in rows]
    healthy = asyncio.run(pipeline.run(rows))
    for outcome, expected in zip(outcomes, healthy, strict=True):
        if outcome.reason is None:
            assert outcome.probability == pytest.approx(expected.probability, abs=1e-6)


def test_weights_of_another_architecture_are_refused() -> None:
    mixed = replace(in_torch(load_bundle(PRODUCTION)), weights=load_bundle(CANDIDATE).weights)
    with pytest.raises(RuntimeError, match=r"(?s)Missing key.*lstm"):
        Model(mixed)


class SmallDevice:
    """The real network on a device with memory for so many rows at once."""

    def __init__(self, model: Model, room: int) -> None:
        self._logits = model._predictor.logits
        self.room = room
        self.asked: list[int] = []

    def logits(self, windows: Float32Array, asset_ids: NDArray[np.int64]) -> Float32Array:
        self.asked.append(len(windows))
        if len(windows) > self.room:
            raise OutOfMemory(f"no room for {len(windows)} rows")
        return self._logits(windows, asset_ids)


def on_small_device(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, room: int
) -> tuple[Model, SmallDevice, list[None]]:
    counted: list[None] = []
    model = Model(bundle, out_of_memory=lambda: counted.append(None))
    device = SmallDevice(model, room)
    monkeypatch.setattr(model._predictor, "logits", device.logits)
    return model, device, counted


def test_a_device_out_of_memory_computes_the_same_in_halves_from_then_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    batch = golden.golden_batch(bundle, 11)
    expected = Model(bundle).forward(batch)
    model, device, counted = on_small_device(bundle, monkeypatch, room=6)
    np.testing.assert_allclose(model.forward(batch), expected, atol=1e-6)
    assert device.asked == [11, 5, 5, 1]
    assert len(counted) == 1
    assert "5 rows at most" in caplog.text
    np.testing.assert_allclose(model.forward(batch), expected, atol=1e-6)
    assert device.asked[4:] == [5, 5, 1]  # the ceiling stays
    assert len(counted) == 1


def test_half_is_tried_once_and_then_the_batch_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model, device, counted = on_small_device(bundle, monkeypatch, room=1)
    with pytest.raises(OutOfMemory):
        model.forward(golden.golden_batch(bundle, 8))
    assert device.asked == [8, 4]
    assert len(counted) == 1


def test_what_failed_has_freed_its_memory_when_half_is_tried(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Model(bundle)
    right, held = model._predictor.logits, list[weakref.ref[Float32Array]]()

    def logits(windows: Float32Array, asset_ids: NDArray[np.int64]) -> Float32Array:
        if not held:
            activations = windows * 2
            held.append(weakref.ref(activations))
            raise OutOfMemory("no room")
        assert held[0]() is None, "the error still holds what the failed pass had allocated"
        return right(windows, asset_ids)

    monkeypatch.setattr(model._predictor, "logits", logits)
    assert len(model.forward(golden.golden_batch(bundle, 4))) == 4


def test_a_router_gets_every_row_from_a_device_with_room_for_one(
    bundle: Bundle, pipeline: Pipeline, bars: dict[str, Bars], monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = real_requests(bars, 9)
    rows = [pipeline.row(request) for request in requests]
    expected = values(asyncio.run(pipeline.run(rows)), "probability")
    model, _, counted = on_small_device(bundle, monkeypatch, room=1)
    outcomes = asyncio.run(with_stages(pipeline, model=model.run).run(rows))
    np.testing.assert_allclose(values(outcomes, "probability"), expected, atol=1e-6)
    assert counted


def test_a_device_without_room_for_one_row_fails(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    model, device, _ = on_small_device(bundle, monkeypatch, room=0)
    with pytest.raises(OutOfMemory):
        model.forward(golden.golden_batch(bundle, 1))
    assert device.asked == [1, 1]


@pytest.mark.parametrize(
    ("runtime", "error"),
    [
        (Runtime.TORCH, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")),
        (Runtime.ONNX, RuntimeError("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer")),
        (Runtime.ONNX, RuntimeError("CUDA error cudaErrorMemoryAllocation:out of memory")),
    ],
)
def test_each_runtime_says_when_its_device_is_out_of_memory(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, runtime: Runtime, error: Exception
) -> None:
    model = Model(bundle, ModelConfig(runtime=runtime))

    def fail(*_: object) -> None:
        raise error

    if isinstance(model._predictor, TorchNetwork):
        monkeypatch.setattr(model._predictor, "_module", fail)
    else:
        monkeypatch.setattr(model._predictor, "_session", SimpleNamespace(run=fail))
    with pytest.raises(OutOfMemory, match=r"(?i)memory"):
        model.forward(golden.golden_batch(bundle, 2))


def test_another_error_of_onnx_runtime_is_its_own(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a graph that cannot be run")

    model = Model(bundle, ModelConfig(runtime=Runtime.ONNX))
    monkeypatch.setattr(model._predictor, "_session", SimpleNamespace(run=fail))
    with pytest.raises(RuntimeError, match="cannot be run"):
        model.forward(golden.golden_batch(bundle, 2))


@pytest.mark.parametrize(("rows", "sizes"), [(1, [1]), (5, [1, 2, 4]), (64, [1, 2, 4, 8, 16, 32, 64])])
def test_a_model_is_warm_in_every_size_before_it_serves(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch, rows: int, sizes: list[int]
) -> None:
    asked: list[tuple[int, str]] = []

    def forward(_: Model, batch: WindowBatch) -> Float32Array:
        asked.append((len(batch), threading.current_thread().name))
        return np.zeros(len(batch), np.float32)

    monkeypatch.setattr(Model, "forward", forward)
    model_of(bundle, ModelConfig(warm_up_rows=rows))
    assert [size for size, _ in asked] == [size for size in sizes for _ in range(4)]  # all but the first are timed
    assert {name for _, name in asked} == {"model_0"}  # the thread that serves


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("runtime", [Runtime.TORCH, Runtime.TORCHSCRIPT])
def test_a_gpu_gives_the_golden_logits(bundle: Bundle, golden_batch: WindowBatch, runtime: Runtime) -> None:
    model = Model(bundle, ModelConfig(runtime=runtime))
    assert model.device == "cuda"
    np.testing.assert_allclose(model.forward(golden_batch), bundle.golden.logits, atol=1e-5)
