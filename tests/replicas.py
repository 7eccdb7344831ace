"""The processes of a running graph."""

from pathlib import Path

import psutil

from deployments import processes
from tests.waiting import wait_for

RUNS: dict[str, str] = {}
"""The mark of all processes of a graph, by its address."""
FOLDERS: dict[str, Path] = {}
"""Where it keeps its files, by the same."""


def kill(run_id: str, deployment: str) -> None:
    """SIGKILL one replica of a deployment, and wait until another has taken its place."""
    before = replicas(run_id, deployment)
    before[0].kill()

    def replaced() -> bool:
        now = replicas(run_id, deployment)
        return before[0] not in now and len(now) == len(before)

    wait_for(replaced, 60, lambda: f"no new {deployment}")


def replicas(run_id: str, deployment: str) -> list[psutil.Process]:
    """Return the processes of a deployment, named as `<application>:<deployment>`."""
    return titled(run_id, f"ServeReplica:{deployment}")


def titled(run_id: str, part: str) -> list[psutil.Process]:
    """Return the processes of a graph by what they call themselves."""
    return [one for one in processes.of(run_id) if part in title(one)]


def title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""
