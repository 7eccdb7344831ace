"""Every command block of the README does what it says, in its order, in a fresh clone."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments import ports
from tests.e2e.conftest import ROOT, is_ready
from tests.waiting import wait_for

URL, PORT = "http://127.0.0.1:8000", 8000
OF_MAKE = ("ARGS", "MAKEFLAGS", "MAKEOVERRIDES", "MFLAGS", "MAKELEVEL")
SERVES = ("make demo", "signalgraph up", "serve run")
"""Commands that go on until they are stopped."""
NEEDS_MORE = re.escape("<!-- needs a ") + "(?:cluster|run of your own)" + re.escape(" -->\n")
BLOCK = re.compile(rf"({NEEDS_MORE})?```(bash|python)\n(.*?)```", re.DOTALL)


def blocks() -> list[tuple[str, str]]:
    """Language and content of each block, but for those that need what no test has."""
    found = BLOCK.findall((ROOT / "README.md").read_text())
    return [(language, content) for needs, language, content in found if not needs]


@dataclass
class Reader:
    """Someone who types in what the README says, in two terminals."""

    folder: Path
    environment: dict[str, str]
    serving: subprocess.Popen[bytes] | None = None

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def type(self, line: str) -> str:
        if not line.startswith(SERVES):
            return self.run(["bash", "-ec", line])
        self.stop()
        said = self.folder / "said"
        with said.open("wb") as output:
            self.serving = subprocess.Popen(
                shlex.split(line),
                cwd=self.folder,
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        shown = "ask yourself:" if line.startswith("make demo") else ""
        wait_for(lambda: (is_ready(URL) and shown in said.read_text()) or self.ended(), 240, said.read_text)
        assert not self.ended(), said.read_text()
        return said.read_text()

    def ended(self) -> bool:
        return self.serving is not None and self.serving.poll() is not None

    def stop(self) -> None:
        if self.serving is None:
            return
        if not self.ended():
            os.killpg(self.serving.pid, signal.SIGINT)  # Ctrl-C reaches the whole foreground group
        self.serving.wait(90)
        self.serving = None
        wait_for(lambda: ports.is_free(PORT), 30, lambda: str(ports.holder(PORT)))


@contextmanager
def reader(folder: Path) -> Iterator[Reader]:
    binaries = Path(sys.executable).parent
    short = tempfile.mkdtemp(prefix="sg-", dir="/tmp")  # for Ray's sockets, whose paths end at 107 bytes
    # Where the environment is not the one that `make` would set up, the clone would install itself into it.
    up_to_date = subprocess.run(["make", "--question", "setup", f"VENV={binaries.parent}"], cwd=ROOT, check=False)
    assert up_to_date.returncode == 0, "the environment is older than requirements.lock or pyproject.toml: make setup"
    environment = {
        # What `make test ARGS=…` was told is nothing to the `make` that the reader types.
        **{name: value for name, value in os.environ.items() if name not in OF_MAKE},
        "HOME": str(folder),
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        # The clone uses the environment that the tests run in: `make` finds it set up.
        "VENV": str(binaries.parent),
        "PYTHONPATH": str(folder),
        "RAY_TMPDIR": short,
        "RAY_ADDRESS": "local",
        # Each line runs in a shell of its own: what a block exports is exported here.
        "SIGNALGRAPH_CONTROL_KEY": "key-of-the-desk",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }
    # The README's curl prints an error as it prints an answer; here a 4xx or 5xx fails the line.
    (folder / ".curlrc").write_text("fail-with-body\n")
    someone = Reader(folder, environment)
    try:
        yield someone
    finally:
        someone.stop()
        shutil.rmtree(short, ignore_errors=True)


def clone(folder: Path) -> None:
    """What a fresh clone of the present state holds."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target, follow_symlinks=False)


@pytest.mark.skipif(not ports.is_free(PORT), reason=f"the README's commands need port {PORT}: {ports.holder(PORT)}")
def test_every_command_block_works_in_a_fresh_clone(tmp_path: Path) -> None:
    clone(tmp_path)
    printed = []
    with reader(tmp_path) as someone:
        for language, content in blocks():
            if language == "python":
                printed.append(someone.run([sys.executable, "-c", content]))
                continue
            # The clone is there already.
            lines = [line for line in content.splitlines() if not line.startswith("git clone")]
            printed.extend(someone.type(line) for line in lines)
    said = "\n".join(printed)
    for expected in (
        '"model_version":"v1.0"',
        '"model_version":"v2.0"',
        "12 golden cases reproduced",
        "my-model.yaml: fine",
        "so HOLD",
        "300 decisions over HTTP",
        "epoch 4: production v1.1, candidate v1.0",
    ):
        assert expected in said, said
