"""TorchScript and ONNX files that cannot be served are refused with the reason, and never touch a file."""

import io
import pickle
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from serve_app.errors import BundleError, ConfigError
from serve_app.model.foreign.convert import Reading, Sources, read_foreign
from serve_app.model.predictors.graph import OnnxGraph
from serve_app.model.predictors.script import load_script
from serve_app.types import Runtime
from tests.unit.model.foreign.files import (
    LOOKBACK,
    N_FEATURES,
    PROGRAMS,
    SYMBOLS,
    Trap,
    network,
    program,
    scaling,
    write,
    write_sources,
)

READING = Reading(isolated=False)


class Headed(nn.Module):
    """A network with something after its logits."""

    def __init__(self, inner: nn.Module, after: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.after = inner, after

    def forward(self, features: Tensor, asset_ids: Tensor) -> Tensor:
        return self.after(self.inner(features, asset_ids))


@pytest.fixture
def sources(classes: Any, tmp_path: Path) -> Sources:
    return write_sources(tmp_path, network(classes, "mlp"), "onnx", scaling("json"), ("json", "flat"))


def with_program(sources: Sources, form: str, content: bytes) -> Sources:
    return replace(sources, model=write(sources.model.parent / PROGRAMS[form], content))


@pytest.mark.parametrize("form", PROGRAMS)
def test_a_program_is_kept_as_it_is(sources: Sources, classes: Any, form: str) -> None:
    content = program(network(classes, "mlp"), form)
    foreign = read_foreign(with_program(sources, form, content), READING)
    assert (foreign.runtime, foreign.program, dict(foreign.weights)) == (Runtime(form), content, {})
    assert foreign.origin["converted"]["model"] == f"{form} program"
    assert foreign.origin["unpickled"] == []


@pytest.mark.parametrize("form", PROGRAMS)
@pytest.mark.parametrize(
    ("after", "reason"),
    [
        (torch.sigmoid, "ends in sigmoid"),
        (lambda x: torch.sigmoid(x).squeeze(-1), "ends in sigmoid"),
        (lambda x: torch.log_softmax(torch.cat([x, -x], 1), 1), "ends in log_?softmax"),
        (lambda x: torch.cat([x, -x], 1), r"the network gives \(4, 2\) for 4 windows"),
        (lambda x: x.sum(), r"the network gives \(\)"),
        (lambda x: x - x.mean(0), "in a batch: windows must not touch"),
        (lambda x: x / 0, "no finite logit"),
    ],
    ids=["sigmoid", "sigmoid, flat", "softmax", "two classes", "one number", "touching", "infinite"],
)
def test_a_head_that_gives_no_logit_a_window_is_refused(
    sources: Sources, classes: Any, form: str, after: Callable[[Tensor], Tensor], reason: str
) -> None:
    content = program(Headed(network(classes, "mlp"), after), form)
    with pytest.raises(BundleError, match=f"(?i){reason}"):
        read_foreign(with_program(sources, form, content), READING)


@pytest.mark.parametrize("form", PROGRAMS)
def test_what_does_not_belong_to_a_program_is_named(sources: Sources, classes: Any, form: str) -> None:
    lstm = network(classes, "lstm_attention")
    good = with_program(sources, form, program(lstm, form))
    larger = write(good.model.parent / "map.json", {**SYMBOLS, "TSLA": 5})
    with pytest.raises(BundleError, match="does not take the id 5 that the asset map gives 'TSLA'"):
        read_foreign(replace(good, asset_map=larger), READING)
    narrow = program(network(classes, "lstm_attention", f=22), form, features=22)
    with pytest.raises(BundleError, match=f"does not take {N_FEATURES} features in {LOOKBACK} rows: .*belong together"):
        read_foreign(with_program(sources, form, narrow), READING)


def test_how_long_a_window_is_comes_from_the_graph_or_is_said_to_be_assumed(sources: Sources, classes: Any) -> None:
    assert read_foreign(sources, READING).lookback_window == LOOKBACK
    with pytest.raises(ConfigError, match="--lookback says 30 rows, but the graph takes 24"):
        read_foreign(sources, replace(READING, lookback_window=30))
    script = with_program(sources, "torchscript", program(network(classes, "gru_attention"), "torchscript"))
    foreign = read_foreign(script, READING)
    assert "lookback_window 24 is assumed" in foreign.differences[0]


def test_a_graph_for_one_batch_size_or_with_other_ends_is_refused(sources: Sources, classes: Any) -> None:
    module = network(classes, "mlp")
    with pytest.raises(
        BundleError, match=r"takes features as tensor\(float\) of shape \[3, 24, 23\].*first of any length"
    ):
        read_foreign(with_program(sources, "onnx", program(module, "onnx", batch=3)), READING)
    named = program(module, "onnx", input_names=["x", "ids"], output_names=["y"])
    with pytest.raises(BundleError, match="takes ids, x and gives y; it must take features"):
        read_foreign(with_program(sources, "onnx", named), READING)


# Graphs that reach beyond themselves.


def edited(content: bytes, edit: Callable[[Any], None]) -> bytes:
    model = onnx.load_model_from_string(content)
    edit(model)
    changed: bytes = model.SerializeToString()
    return changed


def in_another_file(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def ten_gigabytes(model: Any) -> None:
    model.graph.initializer.add(name="huge", data_type=TensorProto.FLOAT, dims=[50_000, 50_000], raw_data=b"\0" * 4)


def two_gigabytes_short(model: Any) -> None:
    model.graph.initializer.add(name="short", data_type=TensorProto.FLOAT, dims=[1000, 1000], raw_data=b"\0" * 4)


def made_huge(model: Any) -> None:
    shape = helper.make_tensor("shape", TensorProto.INT64, [2], [50_000, 50_000])
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["shape"], ["made"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["made"], ["sum"]))


def random(model: Any) -> None:
    model.graph.node.append(helper.make_node("RandomNormal", [], ["noise"], shape=[1]))


def from_elsewhere(model: Any) -> None:
    model.opset_import.add(domain="com.example", version=1)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (in_another_file, "lies in another file"),
        (ten_gigabytes, "huge declares 2500000000 values"),
        (two_gigabytes_short, "short declares 1000000 values and does not hold them"),
        (made_huge, "made declares 2500000000 values"),
        (random, "RandomNormal, which is random"),
        (from_elsewhere, r"uses operators of com\.example"),
    ],
)
def test_a_graph_that_is_more_than_arithmetic_on_its_inputs_is_refused(
    sources: Sources, edit: Callable[[Any], None], reason: str
) -> None:
    content = edited(sources.model.read_bytes(), edit)
    with pytest.raises(BundleError, match=reason):
        OnnxGraph(content, threads=1)
    with pytest.raises(BundleError, match=reason):
        read_foreign(with_program(sources, "onnx", content), READING)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x08\x08"])
def test_what_is_no_graph_is_refused(sources: Sources, content: bytes) -> None:
    with pytest.raises(BundleError):
        read_foreign(with_program(sources, "onnx", content), READING)


# Programs that reach beyond their tensors.


def rewritten(content: bytes, edit: Callable[[str], str]) -> bytes:
    """A TorchScript archive with its code changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            new.writestr(name, edit(data.decode()).encode() if name.endswith(".py") else data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('torch.from_file("/etc/passwd")', "calls aten::from_file"),
        ('torch.save(features, "/tmp/x")', "calls aten::save"),
        ('ops.aten.save(features, "/tmp/x")', "calls aten::save"),
        ("ops.evil.run(features)", "calls evil::run"),
    ],
)
def test_a_program_that_calls_more_than_torch_on_tensors_is_refused(
    sources: Sources, classes: Any, line: str, reason: str
) -> None:
    good = program(network(classes, "mlp"), "torchscript")
    content = rewritten(good, lambda text: text.replace("    return", f"    {line}\n    return", 1))
    assert content != good
    with pytest.raises(BundleError, match=reason):
        load_script(content)
    with pytest.raises(BundleError, match=reason):
        read_foreign(with_program(sources, "torchscript", content), READING)


def test_a_program_that_runs_code_while_it_is_loaded_is_refused(classes: Any) -> None:
    good = program(network(classes, "mlp"), "torchscript")
    hooked = rewritten(good, lambda text: text + "  def __setstate__(self, state: int) -> None:\n    return None\n")
    with pytest.raises(BundleError, match="runs code of its own while it is loaded"):
        load_script(hooked)


@pytest.mark.parametrize("part", ["data.pkl", "constants.pkl"])
def test_a_trap_in_the_pickled_parts_of_a_program_never_goes_off(classes: Any, tmp_path: Path, part: str) -> None:
    good, marker = program(network(classes, "mlp"), "torchscript"), tmp_path / "it-ran"
    trapped = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(good)) as old, zipfile.ZipFile(trapped, "w") as new:
        for name in old.namelist():
            new.writestr(name, pickle.dumps(Trap(marker), protocol=2) if name.endswith(part) else old.read(name))
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_script(trapped.getvalue())
    assert not marker.exists()


def test_broken_programs_are_refused(sources: Sources, classes: Any) -> None:
    good = program(network(classes, "mlp"), "torchscript")
    with pytest.raises(BundleError, match="cannot be loaded"):
        load_script(rewritten(good, lambda _: "nonsense("))
    for content in (good[:-40], good[:200]):
        with pytest.raises(BundleError):
            read_foreign(with_program(sources, "torchscript", content), READING)


def test_the_scaler_beside_a_program_still_needs_trust(sources: Sources, tmp_path: Path) -> None:
    import joblib  # noqa: PLC0415

    joblib.dump(scaling("global").content, tmp_path / "scalers.joblib")
    pickled = replace(sources, scaler=tmp_path / "scalers.joblib")
    with pytest.raises(BundleError, match="the scaler file is a pickle"):
        read_foreign(pickled, READING)
    trusted = read_foreign(pickled, Reading(trust_pickle=True))  # in the child process
    assert trusted.scaler.mean == pytest.approx(np.array(read_foreign(sources, READING).scaler.mean))
