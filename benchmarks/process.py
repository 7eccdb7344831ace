"""One measured service: started in a session of its own, asked until it answers, and ended with all its processes."""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

START_S = 180.0
STOP_S = 60.0


class DidNotStart(Exception):
    """A service ended, or did not answer in time; the message has the end of its log."""


def free_port() -> int:
    """Return a port that nobody listens on, below those that the system gives to connections of Ray meanwhile."""
    for port in random.sample(range(12_000, 20_000), 100):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise DidNotStart("no free port between 12000 and 20000")


def post(url: str, body: bytes, content_type: str = "application/json", accept: str = "*/*") -> bytes:
    """Return the body of a 200. Raises urllib's errors."""
    headers = {"Content-Type": content_type, "Accept": accept}
    request = urllib.request.Request(url, body, headers)  # noqa: S310  a URL of ours
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return bytes(answer.read())


@contextmanager
def serving(command: Sequence[str], environment: Mapping[str, str], answers: Callable[[], bool]) -> Iterator[int]:
    """Run a command until the block ends; give its process id once it answers. Raises DidNotStart."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, start_new_session=True, env={**os.environ, **environment}
        )
        try:
            _wait(process, answers, log.fileno())
            yield process.pid
        finally:
            end(process)


def _wait(process: "subprocess.Popen[bytes]", answers: Callable[[], bool], log: int) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if answers():
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    tail = os.pread(log, 4000, max(0, os.fstat(log).st_size - 4000)).decode(errors="replace")
    raise DidNotStart(f"process {process.pid} gives no answer\n{tail}")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ask as Ctrl-C does, then insist; children that left the session are found before."""
    with suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        for child in (*children, *([psutil.Process(process.pid)] if process.poll() is None else [])):
            with suppress(psutil.NoSuchProcess):
                child.kill()
        process.wait()


def ours(config: Path, port: int) -> list[str]:
    """Return the command that runs one of our graphs as users run it."""
    return [sys.executable, "-m", "deployments.cli", "up", str(config), "--port", str(port)]
