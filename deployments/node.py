"""How full the nodes are that the processes of a graph are on, by address."""

from collections.abc import Iterable, Mapping

import ray

from serve_app.monitor import memory_in_use


def memory_of_node() -> dict[str, float]:
    """Return, by this node's address, the largest share of its memory, or of a GPU's in it, that is in use."""
    address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return {address: memory_in_use()}


def merged(told: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return what several processes tell in one; of two that tell of one node, the last."""
    return {node: used for one in told for node, used in one.items()}
