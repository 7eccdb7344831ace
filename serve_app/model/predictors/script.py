"""TorchScript programs, which are looked at before they are loaded: a program may touch nothing but its tensors."""

import io
import re
import warnings
import zipfile
from typing import Any

import torch
from torch import nn

from serve_app.errors import BundleError

_NAMESPACES = {"aten", "prim"}
_FILES = ("save", "load", "from_file", "_save_for_quantized", "_load_for_quantized")
_OPERATOR = re.compile(r"\bops\.(\w+)\.(\w+)")
_FUNCTION = re.compile(r"\btorch\.(\w+)\(")
_SHAPING = {f"aten::{name}" for name in ("squeeze", "unsqueeze", "view", "reshape", "flatten", "to", "select", "slice")}
LARGEST = 4 << 30
"""Bytes of a program once it is unpacked."""


def load_script(content: bytes) -> nn.Module:
    """Load a TorchScript program in eval mode, on the CPU.

    Raises BundleError for one that reads or writes files, calls operators of elsewhere, runs code while it is loaded,
    or does not load.
    """
    _check_code(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch would have everybody on torch.export
        try:
            module: nn.Module = torch.jit.load(io.BytesIO(content), map_location="cpu")  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError) as error:
            raise BundleError(f"the TorchScript program cannot be loaded: {_first_line(error)}") from error
        return module.eval()


def last_function(module: nn.Module) -> str:
    """Return the function that gives the output, seen through those that only change a shape."""
    graph: Any = module.inlined_graph
    node = next(graph.outputs()).node()
    while node.kind() in _SHAPING:
        node = next(node.inputs()).node()
    return str(node.kind()).removeprefix("aten::")


def _first_line(error: Exception) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _check_code(content: bytes) -> None:
    for name, text in _sources(content).items():
        called = {(space, function) for space, function in _OPERATOR.findall(text)}
        called |= {("aten", function) for function in _FUNCTION.findall(text)}
        bad = sorted(f"{s}::{f}" for s, f in called if s not in _NAMESPACES or f in _FILES)
        if bad:
            raise BundleError(
                f"the TorchScript program calls {', '.join(bad[:5])} in {name}: only torch's own operators on tensors"
                " are run here; export the network without them"
            )
        if "def __setstate__" in text:
            raise BundleError(f"the TorchScript program runs code of its own while it is loaded ({name}); trace it")


def _sources(content: bytes) -> dict[str, str]:
    """Return the program's code by file name."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                raise BundleError(f"the TorchScript program is larger than {LARGEST >> 30} GiB once unpacked")
            return {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    except (zipfile.BadZipFile, UnicodeDecodeError, EOFError) as error:
        raise BundleError(f"the TorchScript program is a broken archive: {error}; copy it again") from error
