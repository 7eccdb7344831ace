"""How much of a node's memory is in use: of the machine, or of the control group (container) that limits it."""

from pathlib import Path

import psutil

CGROUP = Path("/sys/fs/cgroup")


def memory_in_use(cgroup: Path = CGROUP) -> float:
    """Return the share, 0 to 1: the larger of the machine's and, where it has a limit, the control group's (v2)."""
    machine = float(psutil.virtual_memory().percent) / 100
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return machine
    return machine if limit == "max" else max(machine, used / int(limit))
