"""A PostgreSQL of our own, from Debian's package, on a free loopback port."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.waiting import free_port, wait_for

_USER = "postgres"


def _programs() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


@contextmanager
def running(programs: Path, folder: Path, port: int, user: str | None) -> Iterator[None]:
    """Serve the cluster in a folder, and stop at the end of the block as PostgreSQL stops fast: rolling back."""
    options = f"-h 127.0.0.1 -p {port} -k {folder}".split()
    with subprocess.Popen([programs / "postgres", "-D", folder / "data", *options], user=user, cwd=folder) as server:
        try:
            wait_for(lambda: answers(url_of(port, "postgresql")), 60, lambda: f"postgres: {server.poll()}")
            yield
        finally:
            server.send_signal(2)  # SIGINT: fast shutdown


def url_of(port: int, scheme: str = "postgresql+psycopg") -> str:
    return f"{scheme}://{_USER}@127.0.0.1:{port}/postgres"


@contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of an empty database; skip where PostgreSQL is not installed."""
    programs = _programs()
    if programs is None:
        pytest.skip("needs PostgreSQL: apt-get install postgresql")
    # PostgreSQL does not run as root.
    user = _USER if os.geteuid() == 0 else None
    folder, port = Path(tempfile.mkdtemp(prefix="sg-pg-", dir="/tmp")), free_port()
    try:
        if user:
            os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
        made: list[str | Path] = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", _USER, "--no-sync"]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        with running(programs, folder, port, user):
            yield url_of(port)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
