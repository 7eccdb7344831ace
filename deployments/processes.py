"""All processes of one run, found by a mark in their environment, and the end of them.

Ray's processes leave the tree of whoever started them, and a killed supervisor orphans HAProxy. The environment
is inherited by every one of them and by nothing else, so this never touches another Ray on the machine.
"""

import contextlib
import os
import signal
import time
from collections.abc import Iterable

import psutil

RUN_ID = "SIGNALGRAPH_RUN_ID"
_KILL_WITHIN_S = 10.0


def of(run_id: str) -> list[psutil.Process]:
    """Return the processes that carry this run's mark, never the caller itself."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _mark(p) == run_id]


def end(run_id: str, grace_s: float = 5.0) -> int:
    """End all processes of a run, politely for `grace_s`, then by force; return how many there were."""
    found = of(run_id)
    _send(found, signal.SIGTERM)
    psutil.wait_procs(found, timeout=grace_s)
    deadline = time.monotonic() + _KILL_WITHIN_S
    while (left := of(run_id)) and time.monotonic() < deadline:
        _send(left, signal.SIGKILL)
        psutil.wait_procs(left, timeout=1.0)
    return len(found)


def memory(run_id: str) -> tuple[int, int]:
    """Return the number of processes of a run and the bytes they hold (pages that they share count in each)."""
    sizes = []
    for process in of(run_id):
        with contextlib.suppress(psutil.Error):
            sizes.append(process.memory_info().rss)
    return len(sizes), sum(sizes)


def _mark(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(RUN_ID)
    except (psutil.Error, OSError):
        return None


def _send(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)
