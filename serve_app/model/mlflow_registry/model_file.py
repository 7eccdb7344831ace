"""Which file of an artefact is the model. Nothing is loaded here but the weights that lie beside an ONNX graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from serve_app.errors import RegistryError

FLAVOURS = {"pytorch": ("model_data", "data", "model.pth"), "onnx": ("data", "model.onnx", "")}
"""Flavour of an MLmodel → the key of its data, what that is by default, and the file in it."""
SUFFIXES = (".pt", ".pth", ".ts", ".onnx", ".safetensors")


def model_file(path: Path, into: Path) -> Path:
    """Return the file given, the one that MLmodel names, or the only one that can be it; an ONNX graph as one file.

    Raises RegistryError.
    """
    if path.is_file():
        return path
    found = _of_flavour(path) or _only(path)
    return _with_weights(found, into) if found.suffix.lower() == ".onnx" else found


def _only(folder: Path) -> Path:
    found = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(found) != 1:
        some = ", ".join(str(file.relative_to(folder)) for file in found[:5]) or "no such file"
        raise RegistryError(
            f"{folder.name} must hold one model file ({', '.join(SUFFIXES)}) and holds {some}; name the file itself"
        )
    return found[0]


def _of_flavour(folder: Path) -> Path | None:
    document = folder / "MLmodel"
    flavours = _flavours(document) if document.is_file() else {}
    for flavour, (key, default, file) in FLAVOURS.items():
        if flavour not in flavours:
            continue
        entry = flavours[flavour] if isinstance(flavours[flavour], Mapping) else {}
        path = (folder / str(entry.get(key, default)) / file).resolve()
        if path.is_file() and path.is_relative_to(folder.resolve()):
            return path
        raise RegistryError(
            f"the MLmodel of {folder.name} is of flavour {flavour} and names no {file or default} here; log the model"
            " with serialization_format='pickle', or its state dict as a file"
        )
    return None


def _flavours(document: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(document.read_bytes())
    except (yaml.YAMLError, RecursionError):
        content = None
    flavours = content.get("flavors", {}) if isinstance(content, Mapping) else None
    if not isinstance(flavours, Mapping):
        raise RegistryError(
            f"the MLmodel of {document.parent.name} cannot be read; name the model file itself, or log the model again"
        )
    return flavours


def _with_weights(path: Path, into: Path) -> Path:
    """Put weights that MLflow and torch keep beside a graph into it, since a model is one file from here on."""
    import onnx  # noqa: PLC0415  only for a graph
    from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data  # noqa: PLC0415

    left = sum(file.stat().st_size for file in path.parent.iterdir() if file.is_file())
    try:
        model = onnx.load(path, load_external_data=False)
        beside = [tensor for tensor in model.graph.initializer if uses_external_data(tensor)]
        for tensor in beside:
            load_external_data_for_tensor(tensor, str(path.parent))
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
            left -= len(tensor.raw_data)
            if left < 0:
                raise ValueError("tensors share their bytes, and are more than the files hold")
        content = model.SerializeToString()
    except Exception as error:  # protobuf's own, and onnx's
        raise RegistryError(
            f"{path.name} and the weights beside it cannot be read: {str(error).splitlines()[0]}; log the graph with"
            " save_as_external_data=False"
        ) from error
    if not beside:
        return path
    into.mkdir(parents=True, exist_ok=True)
    whole = into / path.name
    whole.write_bytes(content)
    return whole
