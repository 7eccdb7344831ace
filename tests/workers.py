"""How two workers of pytest-xdist share the tests: one graph at a time, and unit tests beside it."""

from pathlib import PurePath

from xdist.scheduler import LoadScopeScheduling


class OneGraphAtATime(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Gives a worker all tests that start a graph, which takes both cores and fixed ports; others get unit tests."""

    def _split_scope(self, nodeid: str) -> str:
        file = PurePath(nodeid.partition("::")[0])
        return str(file) if "unit" in file.parts else "graphs"
