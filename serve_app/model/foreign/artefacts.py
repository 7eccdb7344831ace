"""Model and scaler files → plain data. What needs unpickling is unpickled here, in the child process, if it is trusted.

torch, and with trust the code in the files, run here; the parent sees names, numbers and safetensors only.
"""

import io
import pickle
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pydantic import JsonValue
from safetensors.torch import load as load_tensors
from torch import Tensor, nn

from serve_app.config import Section
from serve_app.errors import BundleError
from serve_app.model.foreign.scalers import ScalerNumbers, scaler_numbers
from serve_app.model.foreign.shapes import EMBEDDING, check_head, infer_architecture, probe, unwrapped

TRUST = "if you know who made it, import it with --trust-pickle: it then runs, in a process of its own"
STATE_KEYS = ("model_state_dict", "model")


class Artefacts(Section):
    """What the files hold, besides the weights."""

    form: str
    """In which form the weights came."""
    unpickled: list[str]
    """Files that could not be read without running what they say."""
    notes: list[str]
    use_pooling: bool | None = None
    """Of a whole module, whose layers can be seen."""
    probe: list[float] | None = None
    """Logits of a whole module for the windows of `shapes.probe`."""
    config: dict[str, JsonValue]
    metrics: dict[str, JsonValue]
    scaler: ScalerNumbers | None = None
    asset_map: JsonValue = None


def read_artefacts(model: bytes | None, scaler: bytes | None, trust: bool) -> tuple[Artefacts, dict[str, Tensor]]:
    """Read a file of weights, and a scaler file that is a pickle, into plain data and float32 weights.

    Without a file of weights the model is a program, which is not read here.

    Raises BundleError: what cannot be read without trust, or not at all, with the reason.
    """
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded, unpickled = ({}, False) if model is None else _load_model(model, trust)
        module, state, checkpoint = (None, {}, {}) if model is None else _split(loaded)
        weights, notes = _weights(state)
        config = plain(checkpoint.get("config"))
        artefacts = Artefacts(
            form="program" if model is None else _form(loaded, module, state, checkpoint),
            notes=[],
            unpickled=["model"] * unpickled + ["scaler"] * (scaler is not None),
            config=config if isinstance(config, dict) else {},
            metrics=metrics if isinstance(metrics := plain(checkpoint.get("metrics")), dict) else {},
            scaler=_scaler(scaler, checkpoint.get("scalers"), trust),
            asset_map=plain(checkpoint.get("asset_id_map")),
            **_seen_in_module(module, weights),
        )
    # sklearn says here that a scaler was fitted with another version.
    said = [f"{warning.category.__name__}: {warning.message}" for warning in caught]
    return artefacts.model_copy(update={"notes": [*notes, *dict.fromkeys(said)]}), weights


def plain(value: Any) -> JsonValue:
    """Return the part of a value that JSON can hold; the type's name in place of everything else."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return f"({type(value).__name__})"


def _load_model(content: bytes, trust: bool) -> tuple[Any, bool]:
    """Load a file of torch or of safetensors, and say whether it had to be unpickled for that."""
    try:
        if content[8:9] == b"{":  # a length of eight bytes, then JSON: no pickle begins so
            return load_tensors(content), False
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True), False
    except pickle.UnpicklingError as error:
        if not trust:
            raise BundleError(
                f"the model file cannot be read without unpickling it{_needs(content)}; {TRUST}"
            ) from error
    except Exception as error:
        if not trust:
            raise BundleError(f"the model file is not one that torch.save or safetensors wrote: {error}") from error
    try:
        return torch.load(io.BytesIO(content), map_location="cpu", weights_only=False), True
    except Exception as error:
        raise BundleError(
            f"the model file cannot be unpickled: {type(error).__name__}: {error}. The classes in it must be"
            " importable: run this in the folder of the code that trained it, or put that on PYTHONPATH; or save"
            " {'model_state_dict': model.state_dict()} there, which needs neither classes nor trust"
        ) from error


def _needs(content: bytes) -> str:
    """Name the code that a file would run, found without running it."""
    try:
        names = torch.serialization.get_unsafe_globals_in_checkpoint(io.BytesIO(content))
    except Exception:  # noqa: BLE001  only a better message: files of before torch 1.6, or no torch file at all
        return ""
    return f" (it runs {', '.join(names[:5])})" if names else ""


def _split(loaded: Any) -> tuple[nn.Module | None, Mapping[str, Any], Mapping[str, Any]]:
    """Return the module if there is a whole one, the state dict, and the checkpoint around it, if any."""
    if isinstance(loaded, nn.Module):
        return loaded, loaded.state_dict(), {}
    if not isinstance(loaded, Mapping) or not loaded:
        raise BundleError(f"the model file holds a {type(loaded).__name__}; a network or a dict with one is needed")
    for key in STATE_KEYS:
        value = loaded.get(key)
        if isinstance(value, nn.Module):
            return value, value.state_dict(), loaded
        if isinstance(value, Mapping):
            return None, value, loaded
    if all(isinstance(value, Tensor) for value in loaded.values()):
        return None, loaded, {}
    raise BundleError(
        f"the model file is a dict of {', '.join(sorted(map(str, loaded))[:8])}; the network must be under 'model' or"
        " 'model_state_dict', or the dict be a state dict itself"
    )


def _form(loaded: Any, module: nn.Module | None, state: Mapping[str, Any], checkpoint: Mapping[str, Any]) -> str:
    kind = "state dict" if module is None else f"module {type(module).__module__}.{type(module).__qualname__}"
    key = next((key for key in STATE_KEYS if isinstance(checkpoint.get(key), nn.Module | Mapping)), None)
    wrapped = any(name != unwrapped(name) for name in state)
    bare = "bare " if loaded is state else "whole " if loaded is module else ""
    return f"{bare}{kind}{'' if key is None else f' under {key!r}'}{', wrapped' if wrapped else ''}"


def _weights(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the tensors as dense float32 ones (counters stay whole numbers) under their own names."""
    weights: dict[str, Tensor] = {}
    kinds = set()
    for wrapped, value in state.items():
        name = unwrapped(str(wrapped))
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise BundleError(f"{wrapped} is not a plain dense tensor; save the state dict of the float32 network")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise BundleError(f"{wrapped} declares {value.numel()} values and does not hold them; save it anew")
        if name in weights:
            raise BundleError(f"two tensors are called {name} once _orig_mod. and module. are taken off")
        kinds.add(str(value.dtype).removeprefix("torch."))
        dense = value.detach().to(torch.float32 if value.is_floating_point() else torch.int64)
        if not bool(torch.isfinite(dense).all()):
            raise BundleError(f"{wrapped} holds NaN or infinity: the training that left it has diverged")
        weights[name] = dense.contiguous().clone()
    return weights, [f"weights were {kind}, and are float32 now" for kind in sorted(kinds - {"float32", "int64"})]


def _scaler(content: bytes | None, within: Any, trust: bool) -> ScalerNumbers | None:
    if content is None:
        return None if within is None else scaler_numbers(within)
    if not trust:
        raise BundleError(f"the scaler file is a pickle, which runs what it says when it is read; {TRUST}")
    import joblib  # noqa: PLC0415  never in the parent, never without trust

    try:
        loaded = joblib.load(io.BytesIO(content))
    except Exception as error:
        raise BundleError(f"the scaler file cannot be unpickled: {type(error).__name__}: {error}") from error
    return scaler_numbers(loaded)


def _seen_in_module(module: nn.Module | None, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return what only a whole module shows: its layers, and what it answers."""
    if module is None:
        return {}
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    architecture = infer_architecture(shapes)
    check_head(architecture, shapes)
    windows, ids = probe(architecture, shapes)
    inner = _inner(module).float().eval()
    try:
        with torch.inference_mode():
            logits = inner(windows, ids)
    except Exception as error:
        raise BundleError(
            f"the module does not answer windows (B, L, F) and asset ids (B,): {type(error).__name__}: {error};"
            f" with {EMBEDDING} of {shapes.get(EMBEDDING)} it should"
        ) from error
    pools = any(isinstance(layer, nn.MaxPool1d) for layer in inner.modules())
    return {"probe": logits.reshape(-1).tolist(), "use_pooling": pools}


def _inner(module: Any) -> nn.Module:
    """Take off torch.compile and DistributedDataParallel: both answer like what is inside."""
    while isinstance(inner := getattr(module, "_orig_mod", getattr(module, "module", None)), nn.Module):
        module = inner
    found: nn.Module = module
    return found
