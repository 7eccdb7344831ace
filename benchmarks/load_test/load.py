"""The load: what users send, and Locust, in a process of its own since it replaces Python's sockets by its own."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from benchmarks.load_test.answers import Second
from benchmarks.load_test.ramp import Ramp
from benchmarks.process import end
from benchmarks.systems import features_body
from benchmarks.workload import questions_of
from serve_app.model import load_bundle

LOCUSTFILE = Path(__file__).parent / "locustfile.py"
PER_SYMBOL = 8
"""Different requests of each symbol."""
STOP_S = 15.0
"""How long users may take to finish their last request."""


class LoadFailed(Exception):
    """Locust ended before its time; the message has the end of its log."""


def make_bodies(bundle: Path) -> list[bytes]:
    """Return real requests that carry features, so that the work is the model's. Raises BundleError."""
    return [features_body(question) for question in questions_of(load_bundle(bundle), PER_SYMBOL)]


class Load:
    """A running Locust."""

    def __init__(self, process: "subprocess.Popen[bytes]", seconds: Path, log: Path) -> None:
        self._process = process
        self._seconds = seconds
        self._log = log

    def over(self, within_s: float) -> bool:
        """Wait, and return whether all users have left. Raises LoadFailed when Locust broke."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        if self._process.returncode:
            raise LoadFailed(
                f"Locust ended with code {self._process.returncode}:\n{self._log.read_text(errors='replace')[-4000:]}"
            )
        return self._process.returncode is not None

    def seconds(self) -> list[Second]:
        """Return what users got, second by second."""
        return [Second.from_json(line) for line in self._seconds.read_bytes().splitlines()]


@contextmanager
def loading(url: str, bodies: Sequence[bytes], ramp: Ramp) -> Iterator[Load]:
    """Send the load to a graph; whatever is left of it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        sent, seconds, log = (Path(folder) / name for name in ("bodies", "seconds", "log"))
        sent.write_bytes(b"\n".join(bodies))
        seconds.touch()
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"]
        # Faults are in the seconds; with a code of theirs, one could not tell them from a Locust that broke.
        command += ["--exit-code-on-error", "0", "--stop-timeout", f"{STOP_S:g}", "--host", url]
        command += ["--bodies", str(sent), "--seconds", str(seconds), *_options(ramp)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True)
        try:
            yield Load(process, seconds, log)
        finally:
            end(process)


def _options(ramp: Ramp) -> Iterator[str]:
    for name, value in asdict(ramp).items():
        yield from (f"--{name.replace('_', '-')}", f"{value:g}")
