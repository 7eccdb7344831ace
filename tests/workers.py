"""How two workers of pytest-xdist share the tests: one graph at a time, and all that starts none beside it."""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling

BESIDE = {"test_mlflow_server.py", "test_repository.py"}
"""Files of other tiers that start no graph. Two graphs that start at once, each with a home of its own as tests have
them, may choose the same ports."""


class OneGraphAtATime(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a worker all tests that start a graph, which takes both cores and fixed ports; others get the rest."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePath(nodeid.partition("::")[0])
        return str(file) if "unit" in file.parts or file.name in BESIDE else "graphs"
