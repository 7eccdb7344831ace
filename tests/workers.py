"""How workers of pytest-xdist share the tests between them, and stay out of each other's way."""

import os
from pathlib import Path

from xdist.scheduler import LoadScopeScheduling

from deployments.ports import SLOTS

CHOOSES_ITS_PORTS = {"test_bundles", "test_demo", "test_init", "test_lifecycle", "test_readme"}
"""Tests that run `signalgraph up`, which takes the first ports that are free; so one at a time."""
COUNT = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
NUMBER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
OF_OTHERS = [slot for slot in range(SLOTS) if slot < 8 or slot % COUNT != NUMBER]
"""The ports of graphs that other workers start meanwhile; the first few are left to `signalgraph up`."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a worker one file after the other; those that share a Ray, or ports, as if they were one."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if file.parent.name == "serve":
            return str(file.parent)
        return "signalgraph up" if file.stem in CHOOSES_ITS_PORTS else str(file)
