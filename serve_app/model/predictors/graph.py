"""ONNX graphs in ONNX Runtime, which are looked at before they are loaded: `features`, `asset_ids` → `logits`."""

import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serve_app.errors import BundleError, OutOfMemory
from serve_app.model.predictors import one_logit_each
from serve_app.types import Float32Array

FEATURES, ASSET_IDS, LOGITS = "features", "asset_ids", "logits"
_PROVIDERS = ("CUDAExecutionProvider", "CPUExecutionProvider")
_DOMAINS = {"", "ai.onnx"}
_SHAPING = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather"}
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_NO_MEMORY = re.compile(r"out of memory|failed to allocate memory", re.IGNORECASE)
LARGEST = 1 << 28
"""Values of one tensor, for a batch of one."""


class OnnxGraph:
    """A graph in ONNX Runtime, on CUDA when this build has it. Raises BundleError for one that may not run."""

    def __init__(self, content: bytes, threads: int) -> None:
        check_graph(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        # A waiting thread that spins takes the core from the replica next to it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what it would log comes as an exception
        available = onnxruntime.get_available_providers()
        providers = [provider for provider in _PROVIDERS if provider in available]
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=providers)
        except Exception as error:  # ONNX Runtime raises classes of its own, all directly under Exception
            raise BundleError(f"ONNX Runtime cannot load the graph: {str(error).splitlines()[0]}") from error
        _check_ends(self._session)

    @property
    def device(self) -> str:
        """Where it runs."""
        return "cuda" if self._session.get_providers()[0] == _PROVIDERS[0] else "cpu"

    @property
    def in_eval_mode(self) -> bool:
        """A graph is what it was exported as; what is random in it is refused when it is loaded."""
        return True

    @property
    def lookback_window(self) -> int | None:
        """Rows of a window, if the graph takes no other number."""
        rows = self._session.get_inputs()[0].shape[1]
        return rows if isinstance(rows, int) else None

    def prepare_thread(self) -> None:
        """Nothing: the session has its own threads."""

    def logits(self, windows: Float32Array, asset_ids: NDArray[np.int64]) -> Float32Array:
        """Return logits (B,) for scaled windows (B, L, F) and asset ids (B,)."""
        given = {FEATURES: np.ascontiguousarray(windows), ASSET_IDS: np.ascontiguousarray(asset_ids)}
        try:
            (logits,) = self._session.run([LOGITS], given)
        except Exception as error:
            if _NO_MEMORY.search(str(error)):  # ONNX Runtime has no class of its own for it
                raise OutOfMemory(str(error).splitlines()[0]) from error
            raise
        return one_logit_each(logits, len(windows))


def check_graph(content: bytes) -> None:
    """Refuse a graph that reads other files, uses operators of elsewhere, is random, or declares huge tensors.

    Raises BundleError.
    """
    import onnx  # noqa: PLC0415  only when a graph is loaded

    try:
        model = onnx.load_model_from_string(content)
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # protobuf's own, and onnx's
        raise BundleError(f"this is no ONNX graph: {str(error).splitlines()[0]}") from error
    domains = sorted({entry.domain for entry in model.opset_import} - _DOMAINS)
    if domains or model.functions:
        raise BundleError(
            f"the graph uses operators of {', '.join(domains) or 'its own'}; only ONNX's own are run here"
        )
    for node in _nodes(model.graph):
        if node.op_type in _RANDOM or (node.op_type == "Dropout" and len(node.input) > 2 and node.input[2]):
            raise BundleError(f"the graph computes {node.op_type}, which is random; export the network in eval mode")
    for tensor in _tensors(model.graph):
        _check_tensor(tensor, onnx.TensorProto.EXTERNAL)
    for value in (*inferred.graph.value_info, *inferred.graph.output):
        _check_size(value.name, [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim])


def last_operator(content: bytes) -> str:
    """Return the operator that gives the logits, seen through those that only change a shape."""
    import onnx  # noqa: PLC0415

    graph = onnx.load_model_from_string(content).graph
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(LOGITS)
    while node is not None and node.op_type in _SHAPING and node.input[0] in makers:
        node = makers[node.input[0]]
    return node.op_type if node is not None else ""


def _check_tensor(tensor: Any, external: int) -> None:
    if tensor.data_location == external or tensor.external_data:
        raise BundleError(f"tensor {tensor.name} lies in another file; export the graph with its weights inside")
    declared = _check_size(tensor.name, tensor.dims)
    if declared > 2 * tensor.ByteSize():  # the smallest numbers take half a byte
        raise BundleError(f"tensor {tensor.name} declares {declared} values and does not hold them")


def _check_size(name: str, dims: Iterable[int]) -> int:
    declared = math.prod(dims)
    if not 0 <= declared <= LARGEST:
        raise BundleError(f"tensor {name} declares {declared} values, more than a network for signals has")
    return declared


def _nodes(graph: Any) -> list[Any]:
    """All nodes of a graph and of the graphs within them."""
    inner = [node for outer in graph.node for part in _graphs(outer) for node in _nodes(part)]
    return [*graph.node, *inner]


def _graphs(node: Any) -> list[Any]:
    single = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return [*single, *(graph for attribute in node.attribute for graph in attribute.graphs)]


def _tensors(graph: Any) -> list[Any]:
    """All constant tensors of a graph and of the graphs within its nodes."""
    nodes = _nodes(graph)
    graphs = [graph, *(inner for node in nodes for inner in _graphs(node))]
    constants = [attribute.t for node in nodes for attribute in node.attribute if attribute.HasField("t")]
    return [*constants, *(tensor for one in graphs for tensor in one.initializer)]


def _check_ends(session: Any) -> None:
    inputs = {end.name: end for end in session.get_inputs()}
    outputs = [end.name for end in session.get_outputs()]
    if set(inputs) != {FEATURES, ASSET_IDS} or outputs != [LOGITS]:
        raise BundleError(
            f"the graph takes {', '.join(sorted(inputs))} and gives {', '.join(outputs)}; it must take {FEATURES}"
            f" (B, L, F) and {ASSET_IDS} (B,), and give {LOGITS}"
        )
    for name, kind, rank in ((FEATURES, "tensor(float)", 3), (ASSET_IDS, "tensor(int64)", 1)):
        end = inputs[name]
        if end.type != kind or len(end.shape) != rank or isinstance(end.shape[0], int):
            raise BundleError(
                f"the graph takes {name} as {end.type} of shape {end.shape}; it must be {kind} of {rank} dimensions,"
                " the first of any length"
            )
