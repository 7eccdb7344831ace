import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from serve_app.config import ModelConfig
from serve_app.errors import BundleError, ConfigError
from serve_app.model import Bundle
from serve_app.model.exporters import export_network
from serve_app.model.predictors import admitted, build_predictor, chosen, one_logit_each, reference
from serve_app.types import Precision, Runtime
from tests.factories import PRODUCTION, ROOT, in_torch

FP32 = Precision.FP32


@pytest.fixture(scope="module")
def scripted(bundle: Bundle) -> Bundle:
    """The shipped bundle with a TorchScript program, too."""
    script = export_network(bundle, Runtime.TORCHSCRIPT, FP32)
    return replace(bundle, programs={**bundle.programs, Runtime.TORCHSCRIPT: script})


@pytest.mark.parametrize("runtime", Runtime)
@pytest.mark.parametrize("threads", [1, 2])
def test_every_runtime_says_the_same_in_batches_of_every_size(scripted: Bundle, runtime: Runtime, threads: int) -> None:
    predictor = build_predictor(scripted, runtime, FP32, threads)
    predictor.prepare_thread()
    golden = scripted.golden
    ids = np.array([scripted.asset_id(str(symbol)) for symbol in golden.symbols])
    assert (predictor.device, predictor.in_eval_mode) == ("cpu", True)
    for size in (1, 5, 12):
        for start in range(0, 12, size):
            part = slice(start, start + size)
            logits = predictor.logits(golden.windows[part], ids[part])
            assert logits.dtype == np.float32
            np.testing.assert_allclose(logits, golden.logits[part], rtol=0, atol=1e-6)


def test_arrays_may_be_read_only_and_in_any_layout(scripted: Bundle) -> None:
    windows = np.asfortranarray(scripted.golden.windows)
    ids = np.zeros(24, dtype=np.int64)[::2]
    windows.flags.writeable = ids.flags.writeable = False
    for runtime in Runtime:
        predictor = build_predictor(scripted, runtime, FP32, threads=1)
        expected = predictor.logits(np.ascontiguousarray(windows), np.zeros(12, dtype=np.int64))
        np.testing.assert_array_equal(predictor.logits(windows, ids), expected)


# Which one.


def test_a_bundle_is_served_as_it_was_exported_unless_the_configuration_says_otherwise(bundle: Bundle) -> None:
    assert chosen(bundle, ModelConfig()) == (Runtime.ONNX, FP32)
    assert chosen(bundle, ModelConfig(runtime=Runtime.TORCH)) == (Runtime.TORCH, FP32)
    assert chosen(in_torch(bundle), ModelConfig()) == (Runtime.TORCH, FP32)
    assert admitted(bundle) == ((Runtime.TORCH, FP32), (Runtime.ONNX, FP32))


def test_a_runtime_that_the_bundle_has_no_file_for_is_refused_with_the_way_to_one(bundle: Bundle) -> None:
    with pytest.raises(
        ConfigError, match=r"has no model\.ts; it runs on torch, onnx.*bundle export --runtime torchscript"
    ):
        chosen(bundle, ModelConfig(runtime=Runtime.TORCHSCRIPT))


def test_a_runtime_or_precision_that_has_not_passed_the_gate_is_refused(bundle: Bundle) -> None:
    with pytest.raises(ConfigError, match=r"decides alike on torch in bf16.*export --runtime torch --precision bf16"):
        chosen(bundle, ModelConfig(runtime=Runtime.TORCH, precision=Precision.BF16))
    with pytest.raises(ConfigError, match="decides alike on onnx in fp32"):
        chosen(replace(bundle, gates=()), ModelConfig())


def test_the_program_that_a_bundle_came_with_needs_no_gate(bundle: Bundle) -> None:
    alone = replace(bundle, weights={}, gates=())
    assert reference(alone) == (Runtime.ONNX, FP32)
    assert chosen(alone, ModelConfig()) == (Runtime.ONNX, FP32)


def test_a_precision_that_the_machine_lacks_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="fp16 needs a GPU"):
        build_predictor(bundle, Runtime.TORCH, Precision.FP16, threads=1)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    with pytest.raises(ConfigError, match="this CPU has no BF16"):
        build_predictor(bundle, Runtime.TORCH, Precision.BF16, threads=1)


@pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="this CPU has no BF16")
def test_bf16_is_computed_in_bf16(bundle: Bundle) -> None:
    ids = np.zeros(12, dtype=np.int64)
    exact, rough = (
        build_predictor(bundle, Runtime.TORCH, precision, threads=1).logits(bundle.golden.windows, ids)
        for precision in (FP32, Precision.BF16)
    )
    assert rough.dtype == np.float32
    assert 1e-4 < np.abs(rough - exact).max() < 0.1


@pytest.mark.parametrize("shape", [(3, 2), (2,), (), (1, 3), (3, 1, 1)])
def test_anything_but_one_logit_a_window_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(BundleError, match="a head of unknown meaning"):
        one_logit_each(np.zeros(shape), 3)


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_one_logit_a_window_comes_flat(shape: tuple[int, ...]) -> None:
    assert one_logit_each(np.zeros(shape, dtype=np.float32), 3).shape == (3,)


def test_a_replica_that_runs_a_graph_does_without_torch() -> None:
    code = (
        "import sys\nfrom serve_app.model import load_bundle\nfrom serve_app.model.stage import Model\n"
        f"Model(load_bundle({str(PRODUCTION)!r}))\nprint('torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


def test_only_what_can_be_exported_is(bundle: Bundle) -> None:
    refused: list[tuple[Callable[[], bytes], str]] = [
        (lambda: export_network(bundle, Runtime.ONNX, Precision.BF16), "no BF16 kernels"),
        (lambda: export_network(bundle, Runtime.TORCH, FP32), "torch is no program"),
    ]
    for export, reason in refused:
        with pytest.raises(ConfigError, match=reason):
            export()
    with pytest.raises(BundleError, match="a program for onnx without weights"):
        export_network(replace(bundle, weights={}), Runtime.TORCHSCRIPT, FP32)


def test_an_export_says_nothing_of_the_machine_that_made_it_and_is_the_same_every_time(bundle: Bundle) -> None:
    first = export_network(bundle, Runtime.ONNX, FP32)
    assert first == export_network(bundle, Runtime.ONNX, FP32) == bundle.programs[Runtime.ONNX]
    assert str(ROOT).encode() not in first
    assert b"site-packages" not in first
