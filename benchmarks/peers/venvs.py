"""An environment of its own for every peer, so that no peer is held back by the versions that another needs."""

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parents[1] / ".bench"


class CannotInstall(Exception):
    """The packages of a peer cannot be installed; the message has what pip says."""


def python_of(peer: str) -> Path:
    """Return the interpreter of a peer's environment, made at the first use and whenever its pins change.

    Raises CannotInstall.
    """
    pins = HERE / peer / "requirements.txt"
    folder = ENVIRONMENTS / f"{peer}-{hashlib.sha256(pins.read_bytes()).hexdigest()[:8]}"
    python = folder / "bin" / "python"
    if python.exists():
        return python
    print(f"installing {peer} into {folder}", file=sys.stderr)
    building = folder.with_suffix(".new")
    _run([sys.executable, "-m", "venv", "--clear", str(building)])
    _run([str(building / "bin" / "python"), "-m", "pip", "install", "--quiet", "-r", str(pins)])
    # pip writes no absolute path that `python -m` would need.
    shutil.rmtree(folder, ignore_errors=True)
    building.rename(folder)
    return python


def _run(command: list[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise CannotInstall(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
