"""Closed loop with wrk: each connection sends its next request when its last is answered."""

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

SCRIPT = Path(__file__).parent / "wrk.lua"


class MissingTool(Exception):
    """A program that the benchmark needs is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What to send: bodies in turn, to one URL."""

    url: str
    bodies: Sequence[bytes]
    content_type: str = "application/json"


@dataclass(frozen=True, slots=True)
class Measured:
    """What one run of wrk saw. `not_2xx` were answered otherwise, `lost` never."""

    requests: int
    duration_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    not_2xx: int
    lost: int

    @property
    def per_s(self) -> float:
        """Requests answered well in a second."""
        return (self.requests - self.not_2xx) / self.duration_s


def closed_loop(load: Load, connections: int, seconds: float) -> Measured:
    """Run wrk with one thread. Raises MissingTool, CalledProcessError."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise MissingTool("wrk is not installed; on Debian: apt-get install wrk")
    with TemporaryDirectory(prefix="bodies-") as folder:
        files = [Path(folder) / str(i) for i in range(len(load.bodies))]
        for file, body in zip(files, load.bodies, strict=True):
            file.write_bytes(body)
        connection = ["-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s", "-s", str(SCRIPT), load.url]
        arguments = [urlsplit(load.url).path, load.content_type, *map(str, files)]
        output = subprocess.run([wrk, *connection, "--", *arguments], check=True, capture_output=True, text=True).stdout
    return Measured(**json.loads(output.splitlines()[-1]))


def in_turn(rounds: int, measure: Callable[[bool], Measured]) -> dict[bool, list[Measured]]:
    """Measure without and with something, `rounds` times each: off, on, on, off, so that what drifts meets both."""
    runs: dict[bool, list[Measured]] = {False: [], True: []}
    for i in range(2 * rounds):
        on = i % 4 in (1, 2)
        runs[on].append(measure(on))
    return runs
