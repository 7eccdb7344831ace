"""Sizes that differ between `make test` (CI) and `make prove` (full): one table for all tests."""

import os

SIZES: dict[str, tuple[int, int]] = {
    "hypothesis examples": (40, 1000),
    "history ends per symbol": (150, 3000),
    "perturbed positions": (120, 329),
    "changed bytes per file": (12, 2000),
    "audited windows per symbol": (150, 3000),
    "points of a lookahead audit": (25, 400),
    "lines that a move is killed at": (40, 1000),
    "rounds of promote and rollback with kill -9": (12, 200),
    "scaler and map forms": (6, 18),
    "scaler and map forms from MLflow": (1, 18),
    "replayed windows of a gate": (120, 2000),
    "symbols of an assignment": (500, 500),
    "simulated experiments": (60, 400),
    "routers that are killed": (3, 40),
    "routers that are killed under load": (2, 10),
    "rounds of kills of every stage": (1, 4),
    "seconds without a database": (5, 30),
    "decisions that are replayed": (100, 1000),
    "releases under load": (8, 20),
    "new databases": (40, 400),
    "kills of the monitor": (5, 20),
    "blocks without drift": (200, 2000),
    "histories of losses": (60, 400),
    "windows of a budget": (1_000, 20_000),
}
"""What is counted → how many in CI, how many in a full run."""


def size(name: str) -> int:
    """Return the size for this run; SIGNALGRAPH_PROVE=1 asks for the full one."""
    ci, full = SIZES[name]
    return full if os.environ.get("SIGNALGRAPH_PROVE") == "1" else ci
