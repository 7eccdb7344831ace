"""The machine on which something was measured, and when."""

import platform
from datetime import UTC, datetime
from pathlib import Path

import psutil


def now() -> str:
    """Return the time, for people."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"


def machine() -> str:
    """Return what this machine is: processor, cores, memory."""
    info = Path("/proc/cpuinfo")
    names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    memory = psutil.virtual_memory().total / 2**30
    return f"{(names or [platform.machine()])[0]}, {psutil.cpu_count()} cores, {memory:.0f} GiB"
