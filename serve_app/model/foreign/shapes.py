"""Names and shapes of the tensors → architecture and dimensions. Weights cannot lie about them; configurations do."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from serve_app.errors import BundleError
from serve_app.model.architectures import build_architecture
from serve_app.model.bundle import Dimension

Shapes = Mapping[str, Sequence[int]]
"""Tensor name → shape."""

WRAPPERS = ("_orig_mod.", "module.")
"""What torch.compile and DistributedDataParallel put before every name, in either order."""
EMBEDDING = "asset_embedding.weight"
MEANING = "logits of one class, whose sigmoid is the probability that the profit target is reached first"


def unwrapped(name: str) -> str:
    """Return the name that a tensor has in the network itself."""
    while name.startswith(WRAPPERS):
        name = name.split(".", 1)[1]
    return name


def infer_architecture(shapes: Shapes) -> str:
    """Return which of our architectures has tensors of these names. Raises BundleError."""
    parts = {name.split(".", 1)[0] for name in shapes}
    if "mlp" in parts:
        return "mlp"
    if "cnn_layers" in parts:
        return "cnn_lstm"
    for recurrent, name in (("lstm", "lstm_attention"), ("gru", "gru_attention")):
        if {recurrent, "input_projection"} <= parts:
            return name
    raise BundleError(
        f"the tensors are not those of mlp, lstm_attention, gru_attention or cnn_lstm: their names begin with"
        f" {', '.join(sorted(parts)) or 'nothing'}; a network of another kind cannot be imported by this version"
    )


def check_head(architecture: str, shapes: Shapes) -> None:
    """Refuse a network that does not end in one logit. Raises BundleError."""
    last = _numbered("mlp" if architecture == "mlp" else "classifier", "weight", shapes)[-1]
    if shapes[last][0] != 1:
        raise BundleError(
            f"a head of unknown meaning: {last} gives {shapes[last][0]} outputs, and nothing says which of them is the"
            f" probability to buy; only {MEANING}, can be served. Retrain with one output"
        )


def step_width(architecture: str, shapes: Shapes) -> int:
    """Return the numbers of a window that meet the first layer: F a step, or L·F for an mlp. Raises BundleError."""
    first = {"mlp": "mlp.0.weight", "cnn_lstm": "cnn_layers.0.0.weight"}.get(architecture, "input_projection.weight")
    width = _shape(shapes, first)[1] - _shape(shapes, EMBEDDING)[1]
    if width < 1:
        raise BundleError(f"{first} takes fewer numbers than the embedding of {EMBEDDING} has; the tensors do not fit")
    return width


def infer_dimensions(
    architecture: str, shapes: Shapes, n_features: int, lookback_window: int, use_pooling: bool
) -> dict[str, Dimension]:
    """Return all dimensions that inference depends on; pooling leaves no trace in the weights, so it is given.

    Raises BundleError for tensors that no network of ours has.
    """
    num_assets, embedding = _shape(shapes, EMBEDDING)
    common: dict[str, Dimension] = {
        "n_features": n_features,
        "num_assets": num_assets,
        "asset_embedding_dim": embedding,
    }
    if architecture == "mlp":
        hidden = [shapes[name][0] for name in _numbered("mlp", "weight", shapes)[:-1]]
        return {**common, "lookback_window": lookback_window, "hidden_dims": hidden}
    kind = "gru" if architecture == "gru_attention" else "lstm"
    common |= {
        f"{kind}_hidden_dim": _shape(shapes, f"{kind}.weight_hh_l0")[1],
        f"{kind}_num_layers": sum(bool(re.fullmatch(rf"{kind}\.weight_hh_l\d+", name)) for name in shapes),
    }
    if architecture != "cnn_lstm":
        common["use_layer_norm"] = any(name.startswith("layer_norm.") for name in shapes)
        return {**common, "attention_dim": _shape(shapes, "attention.query.weight")[0]}
    convolutions = [shapes[name] for name in _numbered("cnn_layers", "0.weight", shapes)]
    attention = "attention.query.weight" in shapes
    return {
        **common,
        "cnn_filters": [shape[0] for shape in convolutions],
        "cnn_kernel_sizes": [shape[2] for shape in convolutions],
        "use_attention": attention,
        "use_pooling": use_pooling,
        **({"attention_dim": shapes["attention.query.weight"][0]} if attention else {}),
    }


def check_tensors(architecture: str, dimensions: Mapping[str, Dimension], shapes: Shapes) -> None:
    """Hold every tensor against the network that the dimensions give. Raises BundleError that names what differs."""
    with torch.device("meta"):  # no memory for the weights of a network that only has to be compared
        expected = {
            name: tuple(x.shape) for name, x in build_architecture(architecture, dimensions).state_dict().items()
        }
    given = {name: tuple(shape) for name, shape in shapes.items()}
    reasons = [f"{name} is missing" for name in expected if name not in given]
    reasons += [f"{name} is unknown" for name in given if name not in expected]
    reasons += [
        f"{name} is {given[name]}, not {expected[name]}"
        for name in expected
        if name in given and given[name] != expected[name]
    ]
    if reasons:
        raise BundleError(
            f"the tensors are like those of {architecture}, but the network is another one: {'; '.join(reasons[:5])}"
            f"{' …' if len(reasons) > 5 else ''}. It cannot be rebuilt here, so it cannot be imported"
        )


def probe(architecture: str, shapes: Shapes) -> tuple[Tensor, Tensor]:
    """Return windows and asset ids on which an original network and the rebuilt one must agree."""
    width = step_width(architecture, shapes)
    generator = torch.Generator().manual_seed(0)
    steps = 1 if architecture == "mlp" else 64
    windows = torch.randn(4, steps, width, generator=generator)
    return windows, torch.arange(4) % _shape(shapes, EMBEDDING)[0]


def _shape(shapes: Shapes, name: str) -> Sequence[int]:
    if len(shapes.get(name, ())) < 2:
        raise BundleError(f"the weights lack the matrix {name}; the network is not one of ours and cannot be rebuilt")
    return shapes[name]


def _numbered(part: str, end: str, shapes: Shapes) -> list[str]:
    """Names `part.N.end` of matrices, by N."""
    found = {
        int(match[1]): name
        for name in shapes
        if (match := re.fullmatch(rf"{part}\.(\d+)\.{re.escape(end)}", name)) and len(shapes[name]) >= 2
    }
    if not found:
        raise BundleError(f"the weights lack the matrices {part}.N.{end}; the network cannot be rebuilt")
    return [found[number] for number in sorted(found)]
