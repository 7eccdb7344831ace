"""How much of a node's memory is in use: of the machine, of the container that limits it, of its GPUs."""

from functools import cache
from pathlib import Path

import psutil
import pynvml

CGROUP = Path("/sys/fs/cgroup")


def memory_in_use(cgroup: Path = CGROUP) -> float:
    """Return the largest share, 0 to 1: the machine's, the control group's (v2) if it has a limit, and each GPU's."""
    shares = [float(psutil.virtual_memory().percent) / 100, *_of_group(cgroup), *_of_gpus()]
    return max(shares)


def _of_group(cgroup: Path) -> list[float]:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return []
    return [] if limit == "max" else [used / int(limit)]


@cache
def _has_driver() -> bool:
    """Whether NVML, NVIDIA's library that tells of GPUs whoever uses them, is there; it is begun once a process."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return False
    return True


def _of_gpus() -> list[float]:
    if not _has_driver():
        return []
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        found = [pynvml.nvmlDeviceGetMemoryInfo(handle) for handle in handles]
    except pynvml.NVMLError:  # a GPU that has been lost; what else there is to tell is told
        return []
    return [one.used / one.total for one in found]
