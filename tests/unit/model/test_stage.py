import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from serve_app.config import ModelConfig
from serve_app.errors import StageFailed
from serve_app.model import Bundle, load_bundle
from serve_app.model.stage import Model
from serve_app.pipeline import Pipeline
from serve_app.types import Bars, Float32Array, Reason, Runtime, WindowBatch
from tests.factories import CANDIDATE, PRODUCTION, in_torch, real_requests, values, with_stages


@pytest.fixture(scope="module")
def model(bundle: Bundle) -> Model:
    return Model(bundle)


@pytest.fixture(scope="module")
def golden_batch(bundle: Bundle) -> WindowBatch:
    ids = np.array([bundle.asset_id(str(symbol)) for symbol in bundle.golden.symbols])
    return WindowBatch(bundle.digest, bundle.golden.windows, ids)


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


def test_the_network_never_runs_on_the_event_loop(bundle: Bundle, golden_batch: WindowBatch) -> None:
    threads = []

    class Watched(Model):
        def forward(self, batch: WindowBatch) -> Float32Array:
            threads.append(threading.current_thread())
            return super().forward(batch)

    asyncio.run(Watched(bundle).run(golden_batch))
    assert threads != [threading.main_thread()]
    assert threads[0].name.startswith("model")


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
