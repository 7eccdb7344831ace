"""What cannot become a bundle is refused with the reason, and what is in a pickle never runs untrusted."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from torch import nn

from serve_app.errors import BundleError, ConfigError, NotFound
from serve_app.model.foreign.artefacts import read_artefacts
from serve_app.model.foreign.convert import Reading, Sources, read_foreign
from serve_app.model.foreign.scalers import check_scaler, scaler_numbers
from serve_app.preprocess import TECH23
from serve_app.training.imported import import_bundle
from serve_app.types import Bars
from tests.unit.model.foreign.files import (
    N_FEATURES,
    SETTINGS,
    TRUST,
    Endless,
    Trap,
    is_gone,
    network,
    saved,
    scaling,
    write,
    write_sources,
)
from tests.unit.model.test_bundle import declaring
from tests.waiting import wait_for

NAMES = list(TECH23.features)


@pytest.fixture
def sources(classes: Any, tmp_path: Path) -> Sources:
    """A model that can be imported without trust, to be spoilt."""
    return write_sources(tmp_path, network(classes, "gru_attention"), "bare", scaling("json"), ("json", "flat"))


def state(sources: Sources) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(sources.model, weights_only=True)
    return loaded


# Traps.


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


@pytest.mark.parametrize(
    "content",
    [
        lambda trap, _: saved(trap),
        lambda trap, _: pickle.dumps(trap),
        lambda trap, _: pickle.dumps(trap, protocol=0),
        lambda trap, good: saved({"model_state_dict": good, "scalers": {"global": trap}}),
        lambda trap, good: saved({"model_state_dict": good, "config": trap}),
        lambda trap, good: saved({**good, "mlp": trap}),
    ],
    ids=["torch.save", "pickle", "pickle protocol 0", "scaler", "config", "state dict"],
)
def test_a_trap_in_a_model_file_never_goes_off_untrusted(
    sources: Sources, marker: Path, content: Callable[[Any, Any], bytes]
) -> None:
    write(sources.model, content(Trap(marker), state(sources)))
    with pytest.raises(BundleError, match="--trust-pickle"):
        read_foreign(sources, Reading())
    assert not marker.exists()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3)])
def test_a_trap_in_a_scaler_file_never_goes_off_untrusted(sources: Sources, marker: Path, compress: Any) -> None:
    joblib.dump(Trap(marker), sources.model.parent / "scalers.joblib", compress=compress)
    with pytest.raises(BundleError, match="the scaler file is a pickle"):
        read_foreign(replace(sources, scaler=sources.model.parent / "scalers.joblib"), Reading())
    assert not marker.exists()


def test_the_refusal_names_the_code_that_a_file_would_run(sources: Sources, marker: Path) -> None:
    write(sources.model, saved({"model_state_dict": state(sources), "config": Trap(marker)}))
    with pytest.raises(BundleError, match=r"it runs posix\.system"):
        read_foreign(sources, Reading())


def test_a_trap_that_is_trusted_goes_off_in_the_child_and_gives_nothing(sources: Sources, marker: Path) -> None:
    """The counter-check: these traps work."""
    write(sources.model, saved(Trap(marker)))
    with pytest.raises(BundleError, match="holds a int"):
        read_foreign(sources, TRUST)
    assert marker.exists()


def test_a_pickle_that_never_ends_hits_the_time_limit_and_nothing_is_left_running(
    sources: Sources, marker: Path
) -> None:
    write(sources.model, saved(Endless(marker)))
    with pytest.raises(BundleError, match=r"not read within 1\.5 s.*--time-limit"):
        read_foreign(sources, replace(TRUST, time_limit_s=1.5))
    wait_for(lambda: is_gone(int(marker.read_text())), 10, lambda: "what the pickle started still runs")


def test_a_child_that_dies_is_a_refusal(sources: Sources) -> None:
    class Dies:
        def __reduce__(self) -> tuple[Any, ...]:
            import os  # noqa: PLC0415

            return (os._exit, (3,))

    write(sources.model, saved(Dies()))
    with pytest.raises(BundleError, match="ended with 3"):
        read_foreign(sources, TRUST)


# Files that are not what they should be.


def test_a_module_whose_class_is_not_there_is_refused_with_the_way_out(
    classes: Any,
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(sources.model, saved(network(classes, "mlp")))
    with pytest.raises(BundleError, match=r"No module named 'upstream_nets'.*PYTHONPATH.*model_state_dict"):
        read_foreign(sources, TRUST)


def test_a_file_that_is_missing_is_named(sources: Sources) -> None:
    with pytest.raises(NotFound, match="no file for the scaler"):
        read_foreign(replace(sources, scaler=Path("/nowhere")), Reading())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("content", [b"", b"nonsense", b"PK\x03\x04", b"{}"])
@pytest.mark.parametrize("trust", [True, False])
def test_a_file_that_is_no_model_is_refused(sources: Sources, content: bytes, trust: bool) -> None:
    write(sources.model, content)
    with pytest.raises(BundleError):
        read_foreign(sources, Reading(trust_pickle=trust))


@pytest.mark.usefixtures("here")
def test_safetensors_that_declare_more_than_they_hold_are_refused(sources: Sources) -> None:
    write(sources.model, declaring((50_000, 50_000)))
    with pytest.raises(BundleError, match=r"not one that torch\.save or safetensors wrote"):
        read_foreign(sources, Reading())


def spoilt(change: Callable[[dict[str, Any]], Any]) -> Callable[[Sources], Sources]:
    def apply(sources: Sources) -> Sources:
        write(sources.model, saved(change(state(sources))))
        return sources

    return apply


def without(name: str) -> Callable[[Sources], Sources]:
    return spoilt(lambda weights: {key: value for key, value in weights.items() if key != name})


def other(**content: Any) -> Callable[[Sources], Sources]:
    """Give another file for a role, None for none at all."""

    def apply(sources: Sources) -> Sources:
        files: dict[str, Any] = {
            role: None if value is None else write(sources.model.parent / f"other-{role}", value)
            for role, value in content.items()
        }
        return replace(sources, **files)

    return apply


def numbers(**changes: Any) -> dict[str, Any]:
    return {"mean": [0.0] * N_FEATURES, "scale": [1.0] * N_FEATURES, **changes}


REFUSED: dict[str, tuple[Callable[[Sources], Sources], str]] = {
    "a dict without a network": (spoilt(lambda w: {"weights": w}), "must be under 'model' or 'model_state_dict'"),
    "an empty dict": (spoilt(lambda _: {}), "holds a dict"),
    "a list": (spoilt(lambda w: list(w.values())), "holds a list"),
    "a number in the state dict": (
        spoilt(lambda w: {"model_state_dict": {**w, "x": 3}}),
        "x is not a plain dense tensor",
    ),
    "NaN": (
        spoilt(lambda w: {**w, "gru.weight_hh_l0": torch.full((30, 10), float("nan"))}),
        "gru.weight_hh_l0 holds NaN",
    ),
    "a name twice": (
        spoilt(lambda w: {**w, "module.gru.weight_hh_l0": w["gru.weight_hh_l0"]}),
        "two tensors are called",
    ),
    "another network": (spoilt(lambda w: {"conv.weight": w["gru.weight_hh_l0"]}), "their names begin with conv"),
    "no embedding": (without("asset_embedding.weight"), "lack the matrix asset_embedding"),
    "no attention": (without("attention.query.weight"), "lack the matrix attention.query"),
    "no bias": (without("attention.query.bias"), "attention.query.bias is missing"),
    "a tensor too many": (spoilt(lambda w: {**w, "gate.weight": torch.ones(2)}), "gate.weight is unknown"),
    "a tensor of another shape": (
        spoilt(lambda w: {**w, "gru.bias_hh_l1": torch.ones(2)}),
        r"gru.bias_hh_l1 is \(2,\)",
    ),
    "ten gigabytes that are not there": (
        spoilt(lambda w: {**w, "gru.bias_hh_l1": torch.zeros(1).expand(50_000, 50_000)}),
        "gru.bias_hh_l1 declares 2500000000 values and does not hold them",
    ),
    "a second direction": (
        spoilt(lambda w: {**w, "gru.weight_hh_l0_reverse": w["gru.weight_hh_l0"]}),
        "weight_hh_l0_reverse is unknown",
    ),
    "two classes": (
        spoilt(lambda w: {**w, "classifier.3.weight": torch.ones(2, 5), "classifier.3.bias": torch.ones(2)}),
        "a head of unknown meaning: classifier.3.weight gives 2 outputs",
    ),
    "no scaler": (other(scaler=None), "there is no scaler.*--scaler"),
    "a scaler of other features": (other(scaler=numbers(mean=[0.0], scale=[1.0])), "fitted on 1 features.*takes 23"),
    "a scaler of text": (other(scaler=numbers(mean=["a"] * N_FEATURES)), "must be lists of numbers"),
    "a scale of zero": (other(scaler=numbers(scale=[1.0] * 22 + [0.0])), "feature 22 has mean 0.0 and scale 0.0"),
    "a scale below zero": (other(scaler=numbers(scale=[-1.0] + [1.0] * 22)), "feature 0 "),
    "a scale of NaN": (other(scaler=numbers(scale=[1.0, float("nan")] + [1.0] * 21)), "feature 1 .* scale nan"),
    "a mean of NaN": (other(scaler=numbers(mean=[float("nan")] + [1.0] * 22)), "feature 0 has mean nan"),
    "a scaler of other keys": (other(scaler={"a": 1}), "no scaler to be sure of under the keys 'a'"),
    "a scaler that is not JSON": (other(scaler=b"{"), "the scaler is not JSON"),
    "no map": (other(asset_map=None), "there is no asset map.*--asset-map"),
    "a map that is not JSON": (other(asset_map=b"nonsense"), "the asset map is not JSON"),
    "a map that is a list": (other(asset_map=["AAPL"]), "names no symbol"),
    "an empty map": (other(asset_map={"symbol_to_id": {}}), "names no symbol"),
    "a map beyond the embedding": (
        other(asset_map={"AAPL": 5}),
        "'AAPL' the id 5, the model's embedding has the rows 0 to 4",
    ),
    "a negative id": (other(asset_map={"AAPL": -1}), "the id -1"),
    "an id of text": (other(asset_map={"AAPL": "0"}), "whole numbers"),
    "an id that is true": (other(asset_map={"AAPL": True}), "whole numbers"),
    "a symbol without a name": (other(asset_map={"": 1}), "whole numbers"),
    "an id twice": (other(asset_map={"AAPL": 1, "IBM": 1}), "'AAPL' and 'IBM' the same id 1"),
    "a symbol twice": (other(asset_map=b'{"AAPL": 1, "AAPL": 2}'), "'AAPL' twice"),
    "no feature list": (other(feature_list=None), "which features.*not guessed.*--feature-list"),
    "an empty feature list": (other(feature_list=[]), "nothing says which features"),
    "a feature twice": (other(feature_list=[*NAMES[:-1], "open"]), "'open' twice"),
    "features that are numbers": (other(feature_list=[1, 2]), "not a list of names"),
    "a feature list of another length": (other(feature_list=NAMES[1:]), "takes 23 features, the feature list names 22"),
    "a feature list that is not text": (other(feature_list=b"\xff\xfe"), "not text"),
}


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_the_reason(sources: Sources, name: str) -> None:
    spoil, reason = REFUSED[name]
    read_foreign(sources, Reading())
    with pytest.raises(BundleError, match=f"(?s){reason}"):
        read_foreign(spoil(sources), Reading())


# Options that contradict the files.


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("architecture", "form", "reading", "reason"),
    [
        (
            "gru_attention",
            "bare",
            Reading(architecture="lstm"),
            "says lstm, but the weights are those of gru_attention",
        ),
        ("gru_attention", "bare", Reading(architecture="resnet"), "unknown architecture 'resnet'"),
        ("mlp", "bare", Reading(lookback_window=23), "says 23 rows, but the mlp takes 24 rows"),
        ("cnn_lstm", "bare", Reading(), "do not show whether it pools.*--pooling or --no-pooling"),
        ("cnn_lstm", "module", replace(TRUST, use_pooling=False), "--no-pooling, but the module does otherwise"),
    ],
)
def test_an_option_that_contradicts_the_files_is_refused(
    classes: Any,
    tmp_path: Path,
    architecture: str,
    form: str,
    reading: Reading,
    reason: str,
) -> None:
    sources = write_sources(tmp_path, network(classes, architecture), form, scaling("json"), ("json", "flat"))
    with pytest.raises(ConfigError, match=reason):
        read_foreign(sources, reading)


@pytest.mark.usefixtures("here")
def test_an_mlp_of_another_width_is_refused(classes: Any, tmp_path: Path) -> None:
    sources = write_sources(tmp_path, network(classes, "mlp", f=22), "bare", scaling("json"), ("json", "flat"))
    with pytest.raises(BundleError, match="takes 528 numbers, no whole number of rows of the 23"):
        read_foreign(sources, Reading())


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("architecture", ["mlp", "lstm_attention", "cnn_lstm"])
def test_a_module_of_two_classes_is_refused(classes: Any, tmp_path: Path, architecture: str) -> None:
    module = network(classes, architecture, outputs=2)
    sources = write_sources(tmp_path, module, "module", scaling("json"), ("json", "flat"))
    with pytest.raises(BundleError, match="a head of unknown meaning"):
        read_foreign(sources, TRUST)


@pytest.mark.usefixtures("here")
def test_a_module_with_our_tensors_that_computes_something_else_is_refused(classes: Any, tmp_path: Path) -> None:
    module = network(classes, "mlp", gelu=True)
    sources = write_sources(tmp_path, module, "module", scaling("json"), ("json", "flat"))
    with pytest.raises(BundleError, match="computes something else"):
        read_foreign(sources, TRUST)


def test_a_module_that_does_not_take_windows_and_ids_is_refused(classes: Any) -> None:
    class Lone(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            for name, part in inner.named_children():
                self.add_module(name, part)

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            return features

    wrapped = {"model": Lone(network(classes, "mlp"))}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "load", lambda *_, **__: wrapped)
        with pytest.raises(BundleError, match="does not answer windows"):
            read_artefacts(b"anything at all", None, trust=True)


# Scalers.


def fitted(**settings: Any) -> StandardScaler:
    return StandardScaler(**settings).fit(np.random.default_rng(0).normal(3, 2, (50, 4)))


def test_a_scaler_that_does_not_centre_or_scale_keeps_its_word() -> None:
    assert scaler_numbers(fitted(with_mean=False)).mean == [0.0] * 4
    assert scaler_numbers(fitted(with_std=False)).scale == [1.0] * 4


def test_the_scaler_of_a_dict_is_global_before_standard_before_default_before_the_only_one() -> None:
    first, second = fitted(), scaling("bare").columns[0]
    assert scaler_numbers({"standard": second, "global": first}).mean == first.mean_.tolist()
    assert scaler_numbers({"default": second, "standard": first}).mean == first.mean_.tolist()
    assert scaler_numbers({"mine": first, "n": 3}).mean == first.mean_.tolist()
    with pytest.raises(BundleError, match="no scaler to be sure of under the keys 'mine', 'yours'"):
        scaler_numbers({"mine": first, "yours": second})


def test_scalers_per_feature_are_in_the_order_of_their_numbers_and_complete() -> None:
    one = [StandardScaler().fit(np.array([[i], [i + 2.0]])) for i in range(11)]
    shuffled = {f"feature_{i}": one[i] for i in reversed(range(11))}
    assert scaler_numbers(shuffled).mean == [i + 1.0 for i in range(11)]
    del shuffled["feature_4"]
    with pytest.raises(BundleError, match="per feature must be feature_0"):
        scaler_numbers(shuffled)
    with pytest.raises(BundleError, match="fitted on more than one feature"):
        scaler_numbers({"feature_0": fitted()})


def test_what_is_not_mean_and_scale_is_refused() -> None:
    class Clipped(StandardScaler):  # type: ignore[misc]
        def transform(self, X: Any, copy: bool | None = None) -> Any:  # noqa: N803
            return np.clip(super().transform(X, copy), -1, 1)

    rows = np.random.default_rng(0).normal(3, 2, (50, 4))
    with pytest.raises(BundleError, match="does something else"):
        scaler_numbers(Clipped().fit(rows))
    for wrong in (MinMaxScaler().fit(rows), StandardScaler(), 3, "x"):
        with pytest.raises(BundleError, match="not a fitted scaler of mean and scale"):
            scaler_numbers(wrong)
    with pytest.raises(BundleError, match="scales above zero"):
        check_scaler(scaler_numbers({"mean": [0.0], "scale": [0.0]}), 1)


# Golden cases.


@pytest.mark.usefixtures("here")
def test_without_bars_of_a_known_symbol_there_is_no_bundle(
    sources: Sources, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    foreign = read_foreign(sources, Reading())
    folder = tmp_path / "models/v2.0"
    for without in ({"FB": bars["FB"]}, {"AAPL": bars["AAPL"].tail(200)}):
        with pytest.raises(BundleError, match=r"no symbol of the asset map with 273 bars.*--data FILE.*AAPL, BRK\.B"):
            import_bundle(foreign, SETTINGS, without, "mine.csv", folder)
    with pytest.raises(ConfigError, match="model_version is '2'"):
        import_bundle(foreign, replace(SETTINGS, version="2"), bars, "bokeh", folder)
    assert not folder.exists()


@pytest.mark.usefixtures("here")
def test_a_model_that_always_says_the_threshold_is_refused(
    sources: Sources, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    constant = {name: torch.zeros_like(value) for name, value in state(sources).items()}
    write(sources.model, saved(constant))
    with pytest.raises(BundleError, match="answers the same whatever it is asked"):
        import_bundle(read_foreign(sources, Reading()), SETTINGS, bars, "bokeh", tmp_path / "models/v2.0")
