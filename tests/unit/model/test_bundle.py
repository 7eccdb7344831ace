import hashlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serve_app.errors import BundleCorrupt, BundleError, BundleNotFound, UnknownSymbol
from serve_app.model import Bundle, Golden, load_bundle, write_bundle
from serve_app.model.bundle import CONFIG, GATES, GOLDEN, GRAPH, MANIFEST, MAPPING, METADATA, SCALER, WEIGHTS
from tests.factories import CANDIDATE, FILES, PRODUCTION, ROOT
from tests.sizes import size


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the production bundle, to be spoilt."""
    return Path(shutil.copytree(PRODUCTION, tmp_path / "v1.0"))


def canonical(document: Any) -> bytes:
    return (json.dumps(document, indent=2, ensure_ascii=False) + "\n").encode()


def manifest_again(folder: Path) -> None:
    """Make the manifest agree with the files, as somebody would who means to deceive."""
    files = {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name, content in ((name, (folder / name).read_bytes()) for name in FILES if (folder / name).exists())
    }
    (folder / MANIFEST).write_bytes(canonical({"format_version": 1, "files": files}))


def edit_json(folder: Path, name: str, **changes: Any) -> None:
    document = {**json.loads((folder / name).read_bytes()), **changes}
    (folder / name).write_bytes(canonical({k: v for k, v in document.items() if v is not ...}))
    manifest_again(folder)


# What was shipped.


@pytest.mark.parametrize(
    ("path", "version", "architecture"), [(PRODUCTION, "v1.0", "lstm_attention"), (CANDIDATE, "v1.1", "gru_attention")]
)
def test_a_shipped_bundle_loads(path: Path, version: str, architecture: str) -> None:
    bundle = load_bundle(path)
    assert bundle.version == version
    assert bundle.config.architecture == architecture
    assert bundle.config.bars_needed == 273
    assert len(bundle.golden) == 12
    assert bundle.metadata["model_version"] == version
    assert len(bundle.scaler.mean) == len(bundle.scaler.scale) == len(bundle.config.feature_list) == 23


def test_a_bundle_is_named_by_the_digest_of_its_manifest(bundle: Bundle) -> None:
    manifest = (PRODUCTION / MANIFEST).read_bytes()
    assert bundle.digest == f"sha256:{hashlib.sha256(manifest).hexdigest()}"


def test_a_bundle_that_is_reached_through_a_link_is_the_one_behind_it(bundle: Bundle) -> None:
    linked = load_bundle(ROOT / "models/production")
    assert linked.path == PRODUCTION.resolve()
    assert linked.digest == bundle.digest


def test_a_path_may_be_text(bundle: Bundle) -> None:
    assert load_bundle(str(PRODUCTION)).digest == bundle.digest


def test_known_symbols_have_ids_and_an_unknown_one_is_refused_with_those_that_are_known(bundle: Bundle) -> None:
    assert [bundle.asset_id(symbol) for symbol in ("AAPL", "GOOG", "IBM", "MSFT")] == [0, 1, 2, 3]
    with pytest.raises(UnknownSymbol, match=r"v1\.0 was not trained on 'FB'; it knows AAPL, GOOG, IBM, MSFT") as e:
        bundle.asset_id("FB")
    assert e.value.detail == {"known": ["AAPL", "GOOG", "IBM", "MSFT"]}


@pytest.mark.parametrize("symbol", ["aapl", "", " AAPL", "AAPL "])
def test_symbols_are_exact(bundle: Bundle, symbol: str) -> None:
    with pytest.raises(UnknownSymbol):
        bundle.asset_id(symbol)


# What was changed since it was built.


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_bundle_with_one_byte_changed_is_refused_by_the_name_of_the_file(folder: Path, name: str) -> None:
    path = folder / name
    content = path.read_bytes()
    positions = np.unique(np.linspace(0, len(content) - 1, size("changed bytes per file")).astype(int))
    for position in positions.tolist():
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(content)
            changed[position] ^= flip
            path.write_bytes(changed)
            # A manifest that lists another digest accuses the file, since nobody can tell which of the two it was.
            accused = str(folder) if name == MANIFEST else str(path)
            with pytest.raises(BundleCorrupt) as refusal:
                load_bundle(folder)
            assert accused in str(refusal.value)
    path.write_bytes(content)
    assert load_bundle(folder).version == "v1.0"


@pytest.mark.parametrize("name", FILES)
def test_a_bundle_that_lacks_a_file_is_refused_by_its_name(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleCorrupt, match=f"{name} is missing"):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, -1])
def test_a_bundle_with_a_truncated_file_is_refused_by_its_name(folder: Path, name: str, keep: int) -> None:
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:keep])
    with pytest.raises(BundleCorrupt, match=rf"{name} has {len(content[:keep])} bytes, the manifest says"):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_longer_file_is_refused_by_its_name(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BundleCorrupt, match=name):
        load_bundle(folder)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_a_link_is_refused_even_if_its_content_is_right(folder: Path, name: str) -> None:
    elsewhere = shutil.move(folder / name, folder.parent / name)
    (folder / name).symlink_to(elsewhere)
    with pytest.raises(BundleCorrupt, match=f"{name} is missing or not a plain file"):
        load_bundle(folder)


def test_a_manifest_that_is_a_link_is_refused_like_any_other_file(folder: Path) -> None:
    elsewhere = shutil.move(folder / MANIFEST, folder.parent / MANIFEST)
    (folder / MANIFEST).symlink_to(elsewhere)
    with pytest.raises(BundleError, match=MANIFEST):
        load_bundle(folder)


def test_a_folder_in_place_of_a_file_is_refused(folder: Path) -> None:
    (folder / METADATA).unlink()
    (folder / METADATA).mkdir()
    with pytest.raises(BundleCorrupt, match=f"{METADATA} is missing or not a plain file"):
        load_bundle(folder)


@pytest.mark.parametrize("extra", ["notes.txt", ".hidden", "model.pkl", "Config.json"])
def test_a_file_that_nobody_listed_is_refused_by_its_name(folder: Path, extra: str) -> None:
    (folder / extra).write_text("")
    with pytest.raises(BundleCorrupt, match=rf"does not list: {extra}"):
        load_bundle(folder)


def test_a_folder_that_nobody_listed_is_refused_by_its_name(folder: Path) -> None:
    (folder / "__pycache__").mkdir()
    with pytest.raises(BundleCorrupt, match="__pycache__"):
        load_bundle(folder)


def test_swapping_two_files_is_refused(folder: Path) -> None:
    config, metadata = (folder / CONFIG).read_bytes(), (folder / METADATA).read_bytes()
    (folder / CONFIG).write_bytes(metadata)
    (folder / METADATA).write_bytes(config)
    with pytest.raises(BundleCorrupt):
        load_bundle(folder)


@pytest.mark.parametrize("path", ["nowhere", ".", "v1.0/config.json"])
def test_where_no_bundle_is_the_path_is_named(folder: Path, path: str) -> None:
    with pytest.raises(BundleNotFound, match=r"no bundle at .*: there is no manifest\.json"):
        load_bundle(folder.parent / path)


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text + "\n",
        lambda text: json.dumps(json.loads(text)),
        lambda text: "\ufeff" + text,
        lambda text: json.dumps(dict(reversed(json.loads(text).items())), indent=2) + "\n",
        lambda text: text.replace('"format_version": 1', '"format_version": 2'),
        lambda text: text.replace('"scaler.json"', '"../scaler.json"'),
        lambda _: "{}\n",
        lambda _: "",
    ],
    ids=["CRLF", "more", "compact", "BOM", "order", "version", "path", "nothing listed", "empty"],
)
def test_a_manifest_in_any_other_spelling_is_refused(folder: Path, edit: Callable[[str], str]) -> None:
    manifest = folder / MANIFEST
    manifest.write_text(edit(manifest.read_text()), newline="")
    with pytest.raises(BundleCorrupt, match=MANIFEST):
        load_bundle(folder)


# What was never right: the manifest agrees, and the content cannot be used.


@pytest.mark.parametrize(
    ("name", "changes", "key"),
    [
        (CONFIG, {"model_version": "latest"}, "model_version"),
        (CONFIG, {"head": "probability"}, "head"),
        (CONFIG, {"nan_policy": "bfill"}, "nan_policy"),
        (CONFIG, {"lookback_window": 0}, "lookback_window"),
        (CONFIG, {"bar_interval_s": -1}, "bar_interval_s"),
        (CONFIG, {"feature_list": ...}, "feature_list"),
        (CONFIG, {"loockback_window": 24}, "loockback_window"),
        (CONFIG, {"strategy": {"signal_threshold": 1.1, "max_holding_period": 8, "holding_unit": "bars"}}, "strategy"),
        (CONFIG, {"strategy": {"signal_threshold": 0.5, "max_holding_period": 8, "holding_unit": "days"}}, "strategy"),
        (SCALER, {"kind": "robust"}, "kind"),
        (SCALER, {"scale": ...}, "scale"),
        (MAPPING, {"symbol_to_id": {"AAPL": "zero"}}, "symbol_to_id"),
    ],
)
def test_a_file_with_a_wrong_value_is_refused_by_the_names_of_file_and_key(
    folder: Path, name: str, changes: dict[str, Any], key: str
) -> None:
    edit_json(folder, name, **changes)
    with pytest.raises(BundleCorrupt, match=rf"(?s){name}: .*{key}"):
        load_bundle(folder)


def test_a_runtime_whose_file_is_not_there_is_refused(folder: Path) -> None:
    edit_json(folder, CONFIG, runtime="torchscript")
    with pytest.raises(BundleCorrupt, match=r"config.json names the runtime torchscript, without model\.ts"):
        load_bundle(folder)


def test_a_bundle_without_any_network_is_refused(folder: Path) -> None:
    for name in (WEIGHTS, GRAPH):
        (folder / name).unlink()
    manifest_again(folder)
    with pytest.raises(BundleCorrupt, match=r"one or more of model\.safetensors, model\.ts, model\.onnx"):
        load_bundle(folder)


def test_a_report_of_an_export_that_is_none_is_refused(folder: Path) -> None:
    edit_json(folder, GATES, passed=[{"runtime": "onnx"}])
    with pytest.raises(BundleCorrupt, match=r"(?s)gates\.json: .*precision"):
        load_bundle(folder)


def declaring(shape: tuple[int, ...]) -> bytes:
    """A safetensors file with one tensor of a shape, and four bytes."""
    size = 4 * int(np.prod(shape))
    header = json.dumps({"mlp.0.weight": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + b"\0\0\0\0"


def test_ten_gigabytes_that_are_declared_and_not_there_are_refused(folder: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10 << 27,)})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("held.npy", header.getvalue())
    for name, content in ((WEIGHTS, declaring((50_000, 50_000))), (GOLDEN, buffer.getvalue())):
        good = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        manifest_again(folder)
        with pytest.raises(BundleCorrupt, match=f"{name} cannot be read"):
            load_bundle(folder)
        (folder / name).write_bytes(good)


def test_an_archive_of_golden_cases_that_would_fill_the_memory_is_refused(folder: Path, bundle: Bundle) -> None:
    (folder / GOLDEN).write_bytes(golden_with(bundle, held=np.zeros(300 << 17)))
    manifest_again(folder)
    with pytest.raises(BundleCorrupt, match="declares more than 256 MiB"):
        load_bundle(folder)


def test_weights_that_are_not_safetensors_are_refused(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps({"weight": np.ones(3)}))
    manifest_again(folder)
    with pytest.raises(BundleCorrupt, match=WEIGHTS):
        load_bundle(folder)


class _Bomb:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.path),)


def npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def golden_with(bundle: Bundle, **changes: Any) -> bytes:
    """The golden cases with arrays replaced, or left out where the new one is `...`."""
    with np.load(io.BytesIO(bundle.golden.to_bytes())) as archive:
        arrays = {**dict(archive), **changes}
    return npz(**{name: array for name, array in arrays.items() if array is not ...})


def test_a_pickle_is_never_loaded(folder: Path, bundle: Bundle) -> None:
    crater = folder.parent / "crater"
    bomb = np.array([_Bomb(crater)], dtype=object)
    for content in (golden_with(bundle, symbols=bomb), pickle.dumps(_Bomb(crater))):
        (folder / GOLDEN).write_bytes(content)
        manifest_again(folder)
        with pytest.raises((BundleError, ValueError)):
            load_bundle(folder)
    assert not crater.exists()
    pickle.loads(pickle.dumps(_Bomb(crater)))  # noqa: S301  it would have gone off
    assert crater.exists()


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        (GOLDEN, lambda bundle: golden_with(bundle, symbols=np.array([{}], dtype=object))),
        (GOLDEN, lambda bundle: golden_with(bundle, held=...)),
        (GOLDEN, lambda _: b"not an archive"),
        (GOLDEN, lambda bundle: bundle.golden.to_bytes()[:-30]),
        (GOLDEN, lambda _: b""),
        (METADATA, lambda _: b"{"),
        (METADATA, lambda _: b"[]"),
    ],
    ids=["pickled objects", "array missing", "no archive", "truncated", "empty", "no JSON", "no JSON object"],
)
def test_content_that_cannot_be_read_is_a_bundle_error_that_names_the_file(
    folder: Path, bundle: Bundle, name: str, spoil: Callable[[Bundle], bytes]
) -> None:
    (folder / name).write_bytes(spoil(bundle))
    manifest_again(folder)
    with pytest.raises(BundleCorrupt, match=name):
        load_bundle(folder)


# Writing.


def test_a_bundle_is_read_back_as_it_was_written(bundle: Bundle, tmp_path: Path) -> None:
    written = write_bundle(replace(bundle, path=tmp_path / "deep/v1.0", digest="unbuilt"))
    assert written.path == (tmp_path / "deep/v1.0").resolve()
    for name in ("config", "scaler", "symbol_to_id", "metadata", "programs", "gates"):
        assert getattr(written, name) == getattr(bundle, name)
    assert set(written.weights) == set(bundle.weights)
    for name, values in bundle.weights.items():
        np.testing.assert_array_equal(written.weights[name], values)
        assert written.weights[name].dtype == values.dtype
    same_golden(written.golden, bundle.golden)


def test_one_bundle_written_twice_has_one_digest(bundle: Bundle, tmp_path: Path) -> None:
    first, second = (write_bundle(replace(bundle, path=tmp_path / name)) for name in ("a", "b"))
    assert first.digest == second.digest


def test_a_bundle_that_differs_in_one_number_has_another_digest(bundle: Bundle, tmp_path: Path) -> None:
    mean = [bundle.scaler.mean[0] + 1e-12, *bundle.scaler.mean[1:]]
    changed = replace(bundle, path=tmp_path / "b", scaler=bundle.scaler.model_copy(update={"mean": mean}))
    assert write_bundle(changed).digest != write_bundle(replace(bundle, path=tmp_path / "a")).digest


def test_a_bundle_never_overwrites_what_is_there(bundle: Bundle, folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(FileExistsError):
        write_bundle(replace(bundle, path=folder, metadata={}))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_text_beyond_ascii_is_written_as_it_is(bundle: Bundle, tmp_path: Path) -> None:
    written = write_bundle(replace(bundle, path=tmp_path / "b", metadata={"note": "größer ≥ 0"}))
    assert written.metadata == {"note": "größer ≥ 0"}
    assert "größer ≥ 0" in (tmp_path / "b" / METADATA).read_text(encoding="utf-8")


# Golden cases.


def same_golden(one: Golden, other: Golden) -> None:
    for name in Golden.__slots__:
        left, right = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(left, right, err_msg=name)
        assert left.dtype == right.dtype, name


def test_golden_cases_survive_the_round_trip_in_value_and_type(bundle: Bundle) -> None:
    same_golden(Golden.from_bytes(bundle.golden.to_bytes()), bundle.golden)


def test_the_same_golden_cases_are_the_same_bytes(bundle: Bundle) -> None:
    again = Golden.from_bytes(bundle.golden.to_bytes())
    assert again.to_bytes() == bundle.golden.to_bytes()


def test_a_bundle_in_the_making_has_no_golden_cases() -> None:
    assert len(Golden.nothing()) == 0


def test_the_shipped_golden_cases_hold_every_kind_of_position_and_some_of_each_symbol(bundle: Bundle) -> None:
    golden = bundle.golden
    assert set(golden.is_long.tolist()) == {True, False}
    assert "SELL" in golden.actions.tolist()
    assert len(set(golden.symbols.tolist())) > 1
    assert golden.bars.shape == (12, 273, 7)
    assert golden.windows.shape == (12, 24, 23)
    np.testing.assert_allclose(golden.probabilities, 1 / (1 + np.exp(-golden.logits.astype(float))), rtol=1e-12)


@pytest.mark.parametrize("path", [PRODUCTION, CANDIDATE], ids=["v1.0", "v1.1"])
def test_the_shipped_golden_cases_hold_every_action(path: Path) -> None:
    assert set(load_bundle(path).golden.actions.tolist()) == {"BUY", "SELL", "HOLD"}
