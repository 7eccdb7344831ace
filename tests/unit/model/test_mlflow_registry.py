"""What comes out of MLflow is what went in, or is refused. All runs lie in one local store of SQLite."""

import asyncio
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import joblib
import mlflow
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner, Result

from deployments.cli import main
from serve_app.errors import BundleCorrupt, BundleError, RegistryError
from serve_app.model import Bundle, load_bundle
from serve_app.model.bundle import MANIFEST
from serve_app.model.foreign.convert import Sources, read_foreign
from serve_app.model.mlflow_registry import fetch, fetch_model, fetch_run, publish_bundle, tracked_run
from serve_app.model.mlflow_registry.store import DEFAULT_STORE, connected, experiment_id, store_uri
from serve_app.pipeline import Pipeline
from serve_app.preprocess import TECH23
from serve_app.training.imported import unbuilt_bundle
from serve_app.types import Bars, FeatureRows, SignalRequest
from tests.factories import CANDIDATE, ROOT, features_of
from tests.sizes import size
from tests.unit.model.foreign.files import (
    CLASS_OF,
    MODEL_FORMS,
    PAIRS,
    SETTINGS,
    TRUST,
    WITHOUT_EXTRAS,
    Trap,
    assert_same,
    network,
    saved,
    scaling,
    write,
    write_sources,
)

HERE = replace(TRUST, isolated=False, use_pooling=True)
NAME = "TradingSignalPredictor"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tracking store in a folder of its own, with its artefacts."""
    folder = tmp_path_factory.mktemp("mlflow")
    before = Path.cwd()
    os.chdir(folder)  # where the local store puts its artefacts
    yield f"sqlite:///{folder}/mlflow.db"
    os.chdir(before)


def log_run(store: str, sources: Sources, **params: Any) -> str:
    """Log the files of a foreign model as training code does, and return the id of the run."""
    with connected(store) as client:
        run_id: str = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(run_id, str(sources.model), "best_model")
        for role in ("scaler", "asset_map", "feature_list"):
            path = getattr(sources, role)
            if path is not None:
                client.log_artifact(run_id, str(path))
        for name, value in params.items():
            client.log_param(run_id, name, value)
    return run_id


def register(store: str, run_id: str, name: str, alias: str = "production") -> None:
    with connected(store) as client:
        client.create_registered_model(name)
        version = client.create_model_version(name, f"runs:/{run_id}/best_model", run_id)
        client.set_registered_model_alias(name, alias, version.version)


def with_known_names(sources: Sources) -> Sources:
    """The feature list under the name that a run has it by."""
    if sources.feature_list is None:
        return sources
    renamed = sources.feature_list.with_name("feature_list.json")
    return replace(sources, feature_list=Path(shutil.copy(sources.feature_list, renamed)))


@pytest.mark.parametrize("model_form", MODEL_FORMS)
@pytest.mark.parametrize("architecture", CLASS_OF)
def test_every_form_comes_out_of_a_run_and_of_the_registry_as_the_original_was(
    classes: Any, store: str, tmp_path: Path, architecture: str, model_form: str
) -> None:
    module = network(classes, architecture)
    done = 0
    # Each case begins with another pair, so that few a case still are all of them.
    first = (5 * list(CLASS_OF).index(architecture) + MODEL_FORMS.index(model_form)) % len(PAIRS)
    for number, (scaler_form, map_form) in enumerate([*PAIRS[first:], *PAIRS[:first]]):
        if done == size("scaler and map forms from MLflow"):
            break
        if model_form in WITHOUT_EXTRAS and "checkpoint" in {scaler_form, map_form}:
            continue  # there is no checkpoint around it
        fitted = scaling(scaler_form)
        sources = with_known_names(
            write_sources(tmp_path / f"in{number}", module, model_form, fitted, (scaler_form, map_form))
        )
        run_id = log_run(store, sources)
        name = f"{architecture} {model_form} {number}".replace(".", "-")
        register(store, run_id, name)
        for uri in (f"runs:/{run_id}/best_model", f"models:/{name}@production", f"models:/{name}/1"):
            files = fetch(uri, tmp_path / "out" / uri.replace("/", "_"), store)
            assert (files.bundle, files.run_id) == (None, run_id)
            assert files.sources is not None
            bundle = unbuilt_bundle(read_foreign(files.sources, HERE), SETTINGS, tmp_path / "v2.0")
            assert_same(bundle, module, fitted)
        done += 1
    assert done


def test_a_module_that_was_logged_in_the_pytorch_flavour_is_read_without_loading_it(
    classes: Any, store: str, tmp_path: Path, bars: dict[str, Bars]
) -> None:
    module, fitted = network(classes, "gru_attention"), scaling("json", bars["AAPL"])
    sources = with_known_names(write_sources(tmp_path, module, "bare", fitted, ("json", "nested")))
    with connected(store) as client:
        with mlflow.start_run(experiment_id=experiment_id(client, "flavours")) as run:
            mlflow.pytorch.log_model(module, name="best_model", serialization_format="pickle", pip_requirements=[])
        for path in (sources.scaler, sources.asset_map, sources.feature_list):
            client.log_artifact(run.info.run_id, str(path))
        registered = mlflow.register_model(f"runs:/{run.info.run_id}/best_model", "flavoured")
    for uri in (f"runs:/{run.info.run_id}/best_model", f"models:/flavoured/{registered.version}"):
        files = fetch(uri, tmp_path / uri.replace("/", "_"), store)
        assert files.sources is not None
        assert files.sources.model.name == "model.pth"
        with pytest.raises(BundleError, match="--trust-pickle"):
            read_foreign(files.sources, replace(HERE, trust_pickle=False))
        bundle = unbuilt_bundle(read_foreign(files.sources, HERE), SETTINGS, tmp_path / "v2.0")
        assert_same(bundle, module, fitted, bars["AAPL"])


def test_a_graph_that_was_logged_in_the_onnx_flavour_is_read_with_the_weights_beside_it(
    classes: Any, store: str, tmp_path: Path
) -> None:
    module, fitted = network(classes, "lstm_attention", h=32, a=24), scaling("json")
    sources = with_known_names(write_sources(tmp_path, module, "onnx", fitted, ("json", "nested")))
    with connected(store) as client:
        with mlflow.start_run(experiment_id=experiment_id(client, "flavours")) as run:
            mlflow.onnx.log_model(onnx.load(sources.model), name="best_model", pip_requirements=[])
        for path in (sources.scaler, sources.asset_map, sources.feature_list):
            client.log_artifact(run.info.run_id, str(path))
    files = fetch_run(run.info.run_id, "best_model", tmp_path / "out", store)
    assert files.sources is not None
    assert list((tmp_path / "out/model").rglob("*.data"))  # mlflow's way to keep weights
    assert_same(unbuilt_bundle(read_foreign(files.sources, HERE), SETTINGS, tmp_path / "v2.0"), module, fitted)


@pytest.mark.parametrize(
    ("location", "reason"),
    [("../../../secret", "cannot be read"), ("weights.bin", "share their bytes"), ("nothing.bin", "cannot be read")],
)
def test_weights_beside_a_graph_are_those_of_its_folder_once(
    store: str, tmp_path: Path, location: str, reason: str
) -> None:
    graph = onnx.helper.make_graph([], "g", [], [])
    for number in range(100):
        tensor = graph.initializer.add(name=f"w{number}", data_type=onnx.TensorProto.FLOAT, dims=[2500])
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
    write(tmp_path / "secret", b"x" * 10_000)
    folder = tmp_path / "best_model"
    folder.mkdir()
    write(folder / "weights.bin", b"x" * 10_000)
    write(folder / "model.onnx", onnx.helper.make_model(graph).SerializeToString())
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifacts(run_id, str(folder), "best_model")
    with pytest.raises(RegistryError, match=f"model.onnx and the weights beside it .*{reason}"):
        fetch_run(run_id, "best_model", tmp_path / "out", store)


# Bundles.


@pytest.fixture(scope="module")
def published(store: str, bundle: Bundle) -> str:
    return publish_bundle(bundle.path, NAME, "production", store).run_id


def artefacts(store: str, name: str, into: Path) -> Path:
    """Where the store itself keeps the bundle of a version."""
    with connected(store) as client:
        version = client.get_model_version_by_alias(name, "production")
        location = client.get_logged_model(str(version.source).rsplit("/", 1)[-1]).artifact_location
    [manifest] = Path(location.removeprefix("file://")).rglob(MANIFEST)
    shutil.copytree(manifest.parent, into)
    return manifest.parent


@pytest.mark.usefixtures("published")
def test_a_published_bundle_is_fetched_byte_by_byte(store: str, bundle: Bundle, tmp_path: Path) -> None:
    files = fetch(f"models:/{NAME}@production", tmp_path, store)
    assert (files.sources, files.digest) == (None, bundle.digest)
    assert files.bundle is not None
    for path in bundle.path.iterdir():
        assert (files.bundle / path.name).read_bytes() == path.read_bytes()


@pytest.mark.usefixtures("published")
def test_the_pyfunc_answers_features_and_ids_as_serving_does(
    store: str, bundle: Bundle, pipeline: Pipeline, bars: dict[str, Bars]
) -> None:
    symbols = sorted(bundle.symbol_to_id)
    features = np.stack([features_of(bars[symbol]).values for symbol in symbols])
    ids = np.array([bundle.asset_id(symbol) for symbol in symbols])
    names = bundle.config.feature_list
    rows = [pipeline.row(SignalRequest(s, FeatureRows(names, x))) for s, x in zip(symbols, features, strict=True)]
    expected = [outcome.probability for outcome in asyncio.run(pipeline.run(rows))]
    with connected(store):
        loaded = mlflow.pyfunc.load_model(f"models:/{NAME}@production")
        answered = loaded.predict({"features": features, "asset_ids": ids})
        inputs = {spec.name: (spec.type, spec.shape) for spec in loaded.metadata.signature.inputs}
        with pytest.raises(Exception, match="no symbol of the bundle has the asset id 99"):
            loaded.predict({"features": features[:1], "asset_ids": np.array([99])})
    np.testing.assert_array_equal(answered, expected)
    assert inputs == {"features": (np.float64, (-1, 24, 23)), "asset_ids": (np.int64, (-1,))}


@pytest.mark.usefixtures("published")
def test_a_digest_is_registered_once_and_the_alias_moves(store: str, bundle: Bundle, tmp_path: Path) -> None:
    again = publish_bundle(bundle.path, NAME, "champion", store)
    assert (again.version, again.is_new) == ("1", False)
    other = publish_bundle(CANDIDATE, NAME, "champion", store)
    assert (other.version, other.is_new) == ("2", True)
    with connected(store) as client:
        version = client.get_model_version_by_alias(NAME, "champion")
        assert version.tags["bundle_digest"] == other.digest
        assert version.tags["model_version"] == "v1.1"
        assert client.get_run(str(version.run_id)).data.tags["bundle_digest"] == other.digest
    assert fetch(f"models:/{NAME}@production", tmp_path, store).digest == bundle.digest


@pytest.mark.parametrize("spoilt", ["model.onnx", "scaler.json"])
def test_an_artefact_that_changed_after_publication_is_detected(
    store: str, bundle: Bundle, tmp_path: Path, spoilt: str
) -> None:
    name = f"changed {spoilt.replace('.', ' ')}"
    publish_bundle(bundle.path, name, "production", store)
    folder = artefacts(store, name, tmp_path / "copy")
    content = bytearray((folder / spoilt).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / spoilt).write_bytes(content)
    with pytest.raises(BundleCorrupt, match=f"{spoilt} was changed"):
        fetch(f"models:/{name}@production", tmp_path / "a", store)
    # Somebody who means to deceive makes the manifest agree: the digest in the registry does not.
    other = (tmp_path / "copy" / spoilt).read_bytes() + b"\n"
    (folder / spoilt).write_bytes(other)
    manifest = json.loads((folder / MANIFEST).read_bytes())
    manifest["files"][spoilt] = {"sha256": hashlib.sha256(other).hexdigest(), "bytes": len(other)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    with pytest.raises(RegistryError, match=f"{bundle.digest} was published: its files were changed"):
        fetch(f"models:/{name}@production", tmp_path / "b", store)


@pytest.mark.parametrize("how", ["removed", "doubled"])
def test_what_was_published_as_a_bundle_is_never_read_as_something_else(
    store: str, bundle: Bundle, tmp_path: Path, how: str
) -> None:
    name = f"manifest {how}"
    run_id = publish_bundle(bundle.path, name, "production", store).run_id
    folder = artefacts(store, name, tmp_path / "copy")
    (folder / "model.onnx").unlink()  # one model file is left, as if somebody had logged no more
    if how == "removed":
        (folder / MANIFEST).unlink()
    else:
        (folder / "more").mkdir()
        shutil.copy(folder / MANIFEST, folder / "more")
    for uri in (f"models:/{name}@production", f"models:/{name}/1", f"runs:/{run_id}/bundle"):
        with pytest.raises(RegistryError, match=f"{bundle.digest} was published, and here are [02] files"):
            fetch(uri, tmp_path / uri.replace("/", "_"), store)


def test_a_bundle_that_was_changed_is_mended_by_publishing_it_again(store: str, bundle: Bundle, tmp_path: Path) -> None:
    publish_bundle(bundle.path, "mended", "production", store)
    folder = artefacts(store, "mended", tmp_path / "copy")
    (folder / "scaler.json").write_bytes(b"{}")
    with pytest.raises(BundleCorrupt, match=r"scaler\.json .*; publish it again from where it was built"):
        fetch("models:/mended@production", tmp_path / "a", store)
    again = publish_bundle(bundle.path, "mended", "production", store)
    assert (again.version, again.is_new) == ("2", True)
    assert fetch_model("models:/mended@production", tmp_path / "b", store).digest == bundle.digest
    assert publish_bundle(bundle.path, "mended", "production", store).version == "2"


@pytest.mark.parametrize("digest", ["of the bundle", "of another", None])
def test_a_version_that_somebody_registered_by_hand_has_the_digest_of_its_run(
    store: str, bundle: Bundle, tmp_path: Path, digest: str | None
) -> None:
    name = f"by hand {digest}"
    tags = {"of the bundle": {"bundle_digest": bundle.digest}, "of another": {"bundle_digest": "sha256:0"}}
    with connected(store) as client:
        made = client.create_run(experiment_id(client, "by hand"), tags=tags.get(str(digest), {}))
        run_id = made.info.run_id
        client.log_artifacts(run_id, str(bundle.path), "best_model")
    register(store, run_id, name)
    words = ("import", "--from", f"models:/{name}@production", "--tracking-uri", store, "--models-dir", tmp_path)
    said = run(*words)
    assert said.exit_code == (1 if digest == "of another" else 0), said.output
    assert ("sha256:0 was published" in said.output) is (digest == "of another")
    assert ("MLflow keeps no digest of it" in said.output) is (digest is None)


# Traps.


def test_traps_in_a_run_are_refused_and_never_go_off(classes: Any, store: str, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    sources = with_known_names(
        write_sources(tmp_path / "in", network(classes, "mlp"), "bare", scaling("json"), ("json", "flat"))
    )
    trapped = replace(sources, model=write(tmp_path / "best_model.pt", saved(Trap(marker))))
    joblib.dump(Trap(marker), tmp_path / "scalers.joblib")
    for spoilt in (trapped, replace(sources, scaler=tmp_path / "scalers.joblib")):
        run_id = log_run(store, spoilt)
        register(store, run_id, f"trapped {run_id}")
        for uri in (f"runs:/{run_id}/best_model", f"models:/trapped {run_id}@production"):
            refused = run(
                "import", "--from", uri, "--tracking-uri", store, "--version", "v2.0", "--models-dir", tmp_path / "m"
            )
            assert refused.exit_code == 1
            assert "--trust-pickle" in refused.output
    assert not marker.exists()


def test_a_trap_in_the_pytorch_flavour_is_refused_and_never_goes_off(store: str, tmp_path: Path) -> None:
    folder = tmp_path / "best_model"
    (folder / "data").mkdir(parents=True)
    write(
        folder / "MLmodel", b"flavors: {pytorch: {model_data: data}, python_function: {loader_module: mlflow.pytorch}}"
    )
    for name in ("model.pth", "pickle_module_info.txt"):
        write(folder / "data" / name, saved(Trap(tmp_path / "it-ran")))
    joblib.dump(Trap(tmp_path / "it-ran"), folder / "scalers.joblib")
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifacts(run_id, str(folder), "best_model")
    words = ("--tracking-uri", store, "--version", "v2.0", "--models-dir", tmp_path / "m")
    refused = run("import", "--from", f"runs:/{run_id}/best_model", *words)
    assert (refused.exit_code, "--trust-pickle" in refused.output) == (1, True)
    assert not (tmp_path / "it-ran").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "golden.npz", "model.onnx"])
def test_a_trap_in_a_bundle_is_not_published(store: str, bundle: Bundle, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(bundle.path, tmp_path / "v1.0"))
    torch.save(Trap(tmp_path / "it-ran"), folder / name)
    with pytest.raises(BundleCorrupt, match=name):
        publish_bundle(folder, "trapped bundle", "production", store)
    assert not (tmp_path / "it-ran").exists()


# The command.


def run(*words: object) -> Result:
    return CliRunner().invoke(main, ["bundle", *map(str, words)])


def test_parameters_of_the_run_stand_for_options_that_are_not_given(classes: Any, store: str, tmp_path: Path) -> None:
    sources = with_known_names(
        write_sources(tmp_path / "in", network(classes, "gru_attention"), "bare", scaling("json"), ("json", "flat"))
    )
    run_id = log_run(
        store, sources, lookback_window=30, signal_threshold=0.5, max_holding_period_hours=3, batch_size=64
    )
    words = ("import", "--from", f"runs:/{run_id}/best_model", "--tracking-uri", store, "--models-dir", tmp_path / "m")
    made = run(*words, "--version", "v2.0", "--max-holding-period", "5")
    assert made.exit_code == 0, made.output
    bundle = load_bundle(tmp_path / "m/v2.0")
    assert bundle.config.lookback_window == 30
    assert (bundle.config.strategy.signal_threshold, bundle.config.strategy.max_holding_period) == (0.5, 5)
    assert bundle.metadata["mlflow_run_id"] == run_id
    for value in ("high", 1.5):
        odd = log_run(store, sources, signal_threshold=value)
        refused = run("import", "--from", f"runs:/{odd}/best_model", "--tracking-uri", store, "--version", "v2.1")
        assert (refused.exit_code, f"signal_threshold of run {odd} is of no use" in refused.output) == (1, True)
        assert str(value) in refused.output
        assert "Give --signal-threshold" in refused.output
    hourly = run(*words, "--version", "v2.2")
    assert "holds for at most 3 hours" in hourly.output
    assert "in hours; give --max-holding-period in bars" in run(*words, "--holding-unit", "bars").output
    assert "--version, such as v2.0" in run(*words).output


def test_a_parameter_that_was_logged_as_none_is_not_set(classes: Any, store: str, tmp_path: Path) -> None:
    sources = with_known_names(
        write_sources(tmp_path / "in", network(classes, "mlp"), "bare", scaling("json"), ("json", "flat"))
    )
    run_id = log_run(store, sources, exit_threshold=None, signal_threshold=0.6)
    words = ("import", "--from", f"runs:/{run_id}/best_model", "--tracking-uri", store, "--models-dir", tmp_path / "m")
    made = run(*words, "--version", "v2.0")
    assert made.exit_code == 0, made.output
    strategy = load_bundle(tmp_path / "m/v2.0").config.strategy
    assert (strategy.exit_threshold, strategy.signal_threshold) == (None, 0.6)


def test_a_file_that_is_given_stands_for_the_run_s(classes: Any, store: str, tmp_path: Path) -> None:
    fitted = scaling("json")
    sources = with_known_names(
        write_sources(tmp_path / "in", network(classes, "mlp"), "bare", fitted, ("json", "flat"))
    )
    run_id = log_run(store, sources)
    other = write(tmp_path / "scaler.json", {**fitted.content, "mean": [0.5] * 23})
    with connected(store) as client:
        client.log_artifact(run_id, str(other), "older")
    words = ("import", "--from", f"runs:/{run_id}/best_model", "--tracking-uri", store, "--models-dir", tmp_path / "m")
    assert "give it with --scaler" in run(*words, "--version", "v2.0").output
    made = run(*words, "--version", "v2.0", "--scaler", other)
    assert made.exit_code == 0, made.output
    assert set(load_bundle(tmp_path / "m/v2.0").scaler.mean) == {0.5}


@pytest.mark.usefixtures("published")
def test_a_published_bundle_keeps_its_version_and_everything_else(store: str, bundle: Bundle, tmp_path: Path) -> None:
    words = ("import", "--from", f"models:/{NAME}@production", "--tracking-uri", store, "--models-dir", tmp_path)
    assert "leave out --signal-threshold" in run(*words, "--signal-threshold", "0.2").output
    assert "leave out --version v7.0" in run(*words, "--version", "v7.0").output
    made = run(*words)
    assert made.exit_code == 0, made.output
    assert load_bundle(tmp_path / "v1.0").digest == bundle.digest
    assert "is there already" in run(*words).output
    assert "give either --model or --from" in run("import", "--version", "v2.0").output


def test_publish_says_what_it_did(store: str, bundle: Bundle) -> None:
    words = ("publish", bundle.path, "--name", "told", "--tracking-uri", store)
    first, second = run(*words), run(*words)
    assert first.exit_code == 0, first.output
    assert f"{bundle.digest}\nregistered as version 1 of told" in first.output
    assert "was registered already as version 1" in second.output
    assert second.output.endswith("models:/told@production is this version now\n")


# What is not there, or cannot be told apart.


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        (f"models:/{NAME}/Production", f"ask for models:/{NAME}@production"),
        ("models:/nobody@production", "nobody"),
        ("runs:/0123456789abcdef0123456789abcdef/best_model", "0123456789abcdef"),
        ("s3://bucket/model", "is neither runs:/"),
        ("runs:/abc", "is neither runs:/"),
    ],
)
def test_what_is_not_there_is_said(store: str, tmp_path: Path, uri: str, reason: str) -> None:
    with pytest.raises(RegistryError, match=reason):
        fetch(uri, tmp_path, store)


def test_files_that_cannot_be_told_apart_are_named(classes: Any, store: str, tmp_path: Path) -> None:
    sources = with_known_names(
        write_sources(tmp_path / "in", network(classes, "mlp"), "bare", scaling("json"), ("json", "flat"))
    )
    run_id = log_run(store, sources)
    with connected(store) as client:
        client.log_artifact(run_id, str(sources.scaler), "copy")
    assert fetch_run(run_id, "best_model", tmp_path / "copy", store).sources is not None
    with connected(store) as client:
        client.log_artifact(run_id, str(write(tmp_path / "scaler.json", b"{}")), "older")
    with pytest.raises(
        RegistryError, match=r"files for the scaler: copy/scaler\.json, older/scaler\.json, scaler\.json"
    ):
        fetch_run(run_id, "best_model", tmp_path / "a", store)
    assert fetch_run(run_id, "best_model", tmp_path / "given", store, ["scaler"]).sources is not None
    with connected(store) as client:
        client.log_artifact(run_id, str(sources.scaler), "best_model/a")
        client.log_artifact(run_id, str(tmp_path / "scaler.json"), "best_model/b")
    with pytest.raises(RegistryError, match=r"files for the scaler: a/scaler\.json, b/scaler\.json"):
        fetch_run(run_id, "best_model", tmp_path / "own", store)
    with connected(store) as client:
        client.log_artifact(run_id, str(write(tmp_path / "epoch3.pt", b"x")), "best_model")
    with pytest.raises(RegistryError, match=r"must hold one model file .* holds best_model\.pt, epoch3\.pt"):
        fetch_run(run_id, "best_model", tmp_path / "b", store)
    with connected(store) as client:
        client.log_artifact(run_id, str(sources.asset_map), "empty")
    with pytest.raises(RegistryError, match="holds no such file"):
        fetch_run(run_id, "empty", tmp_path / "d", store)


def test_a_configuration_gives_the_feature_list_where_no_list_does(classes: Any, store: str, tmp_path: Path) -> None:
    sources = write_sources(tmp_path / "in", network(classes, "mlp"), "bare", scaling("json"), ("json", "flat"))
    run_id = log_run(store, replace(sources, feature_list=None))
    config = write(tmp_path / "config.json", {"epochs": 3})
    with connected(store) as client:
        client.log_artifact(run_id, str(config), "other")
    assert fetch_run(run_id, "best_model", tmp_path / "a", store).sources.feature_list is None  # type: ignore[union-attr]
    write(config, {"feature_list": list(TECH23.features)})
    with connected(store) as client:
        client.log_artifact(run_id, str(config))
    files = fetch_run(run_id, "best_model", tmp_path / "b", store)
    assert files.sources is not None
    assert read_foreign(files.sources, HERE).feature_list == TECH23.features


@pytest.mark.parametrize("content", [b"flavors: [", b"- a", b"flavors: 3", b"\xff\xfe\x00", b"[" * 5000])
def test_a_document_that_cannot_be_read_is_said_to(store: str, tmp_path: Path, content: bytes) -> None:
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(run_id, str(write(tmp_path / "MLmodel", content)), "best_model")
    with pytest.raises(RegistryError, match="the MLmodel of best_model cannot be read; name the model file itself"):
        fetch_run(run_id, "best_model", tmp_path / "out", store)


def test_a_flavour_that_leads_out_of_its_folder_is_refused(store: str, tmp_path: Path) -> None:
    document = write(tmp_path / "MLmodel", b"flavors: {pytorch: {model_data: ../../../etc}}")
    with connected(store) as client:
        run_id = client.create_run(experiment_id(client, "elsewhere")).info.run_id
        client.log_artifact(run_id, str(document), "best_model")
    with pytest.raises(RegistryError, match=r"flavour pytorch and names no model\.pth"):
        fetch_run(run_id, "best_model", tmp_path / "out", store)


def test_a_server_that_does_not_answer_is_said_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9: "):
        fetch("models:/x@production", tmp_path, "http://127.0.0.1:9")


def test_the_store_is_the_one_given_or_the_environments_or_a_local_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store_uri(None) == DEFAULT_STORE == "sqlite:///mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking:5000")
    assert store_uri(None) == "http://tracking:5000"
    assert store_uri("sqlite:///mine.db") == "sqlite:///mine.db"


@pytest.mark.parametrize(
    "uri",
    [
        "https://ada:s3cret@mlflow.example",
        "https://:s3cret@mlflow.example",
        "https://ada:s3cret/@mlflow.example",
        "postgresql://ada:s3cret@db.example/mlflow",
        "postgresql://db.example/mlflow?user=ada&password=s3cret",
    ],
)
def test_a_password_in_the_uri_is_refused_and_not_repeated(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    with pytest.raises(RegistryError, match="MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD") as refusal:
        store_uri(uri)
    assert "s3cret" not in "".join(traceback.format_exception(refusal.value))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    said = run("import", "--from", "models:/x@production")
    assert (said.exit_code, "s3cret" in said.output) == (1, False)


def test_a_uri_that_is_none_and_a_driver_that_is_not_there_are_said_to(store: str) -> None:
    with pytest.raises(RegistryError, match="must be like http://host:5000"):
        store_uri("http://[bad")
    with pytest.raises(RegistryError, match="No module named 'psycopg'"), connected(store):
        raise ModuleNotFoundError("No module named 'psycopg'")


def test_mlflow_is_imported_when_it_is_used() -> None:
    modules = "serve_app.model.mlflow_registry, serve_app.cli.bundle, serve_app.cli.train, serve_app.supervised"
    code = f"import sys, {modules}; print('mlflow' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert said.stdout == "False\n"


@pytest.mark.parametrize("own", [None, "environment", "function"])
def test_what_was_set_before_is_set_again(store: str, monkeypatch: pytest.MonkeyPatch, own: str | None) -> None:
    names = ("MLFLOW_DISABLE_TELEMETRY", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    if own == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mine:5000")
    elif own == "function":
        mlflow.set_tracking_uri("http://mine:5000")
    before = mlflow.get_tracking_uri(), {name: os.environ.get(name) for name in names}
    with connected(store):
        assert mlflow.get_tracking_uri() == mlflow.get_registry_uri() == store
    assert (mlflow.get_tracking_uri(), {name: os.environ.get(name) for name in names}) == before
    assert mlflow.get_registry_uri() == before[0]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert ("mine" in mlflow.get_tracking_uri()) is False  # nothing was pinned


# Training.


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (ValueError("diverged"), "FAILED"), (KeyboardInterrupt(), "KILLED")]
)
def test_a_run_ends_as_what_it_was(store: str, error: BaseException | None, status: str) -> None:
    def train() -> None:
        with tracked_run("train v9.9", store, "signalgraph") as run:
            started.append(run.run_id)
            run.params({"fit": {"seed": 7, "epochs": 3}, "architecture": "mlp"})
            run.metrics({"test": {"brier": 0.2, "roc_auc": None}}, step=2)
            if error is not None:
                raise error

    started: list[str] = []
    if error is None:
        train()
    else:
        with pytest.raises(type(error)):
            train()
    with connected(store) as client:
        run = client.get_run(started[0])
    assert run.info.status == status
    assert run.data.params == {"fit.seed": "7", "fit.epochs": "3", "architecture": "mlp"}
    assert run.data.metrics == {"test_brier": 0.2}


def test_a_run_that_fails_says_why_even_if_the_store_is_gone(tmp_path: Path) -> None:
    def train() -> None:
        with tracked_run("train v9.9", f"sqlite:///{tmp_path}/mlflow.db", "signalgraph"):
            write(tmp_path / "mlflow.db", b"no database " * 1000)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        train()


def train_v3(store: str, folder: Path) -> tuple[Result, Any]:
    """Train into a folder, in an experiment of its own, and return what was said and the run."""
    where = ["--models-dir", str(folder), "--tracking-uri", store, "--experiment", folder.name]
    done = CliRunner().invoke(main, ["train", "--version", "v3.0", "--preset", "v1.1", "--epochs", "1", *where])
    with connected(store) as client:
        [logged] = client.search_runs([experiment_id(client, folder.name)])
    return done, logged


def test_a_training_that_is_terminated_ends_as_killed(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve_app.training.train.train", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    done, logged = train_v3(store, tmp_path / "terminated")
    assert (done.exit_code, logged.info.status) == (1, "KILLED")
    assert signal.getsignal(signal.SIGTERM) is before
    assert not (tmp_path / "terminated/v3.0").exists()


def test_a_bundle_that_could_not_be_logged_is_there_and_is_told(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RegistryError("MLflow at http://tracking: no space left")

    monkeypatch.setattr("serve_app.model.mlflow_registry.tracking.TrackedRun.bundle", fails)
    done, logged = train_v3(store, tmp_path / "unlogged")
    assert (done.exit_code, logged.info.status) == (1, "FAILED")
    assert load_bundle(tmp_path / "unlogged/v3.0").digest in done.output
    assert "no space left" in done.output


def test_training_logs_what_it_did_and_trains_the_same_without(store: str, tmp_path: Path) -> None:
    def train(*words: object) -> Result:
        command = ["train", "--version", "v3.0", "--preset", "v1.1", "--epochs", "2", *map(str, words)]
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        return done

    train("--models-dir", tmp_path / "a", "--tracking-uri", store)
    train("--models-dir", tmp_path / "b", "--no-mlflow")
    logged, plain = load_bundle(tmp_path / "a/v3.0"), load_bundle(tmp_path / "b/v3.0")
    for name, values in plain.weights.items():
        np.testing.assert_array_equal(logged.weights[name], values)
    assert plain.metadata["mlflow_run_id"] is None
    run_id = logged.metadata["mlflow_run_id"]
    with connected(store) as client:
        run = client.get_run(run_id)
        losses = client.get_metric_history(run_id, "validation_loss")
    assert run.info.status == "FINISHED"
    assert run.data.params["architecture"] == "gru_attention"
    assert run.data.params["label.profit_target"] == "0.04"
    assert run.data.params["data_version"] == logged.metadata["training_data_version"]
    tested = logged.metadata["performance_metrics"]["test"]
    assert run.data.metrics["test_average_precision"] == tested["average_precision"]
    assert [metric.step for metric in losses] == [1, 2]
    files = fetch_run(run_id, "bundle", tmp_path / "c", store)
    assert files.bundle is not None
    assert load_bundle(files.bundle).digest == logged.digest == run.data.tags["bundle_digest"]
