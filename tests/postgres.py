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

from tests.programs import needed
from tests.waiting import free_port, wait_for

_USER = "postgres"


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


class Postgres:
    """A cluster in a folder of its own, which may be stopped and started again."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._port = free_port()
        # PostgreSQL does not run as root.
        self._user = _USER if os.geteuid() == 0 else None
        self._server: subprocess.Popen[bytes] | None = None
        if self._user:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, -1)
        made: list[str | Path] = [programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", _USER, "--no-sync"]
        subprocess.run(made, user=self._user, cwd=folder, check=True, capture_output=True)

    def url(self, scheme: str = "postgresql+psycopg") -> str:
        return f"{scheme}://{_USER}@127.0.0.1:{self._port}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self._port} -k {self._folder}".split()
        command: list[str | Path] = [self._programs / "postgres", "-D", self._folder / "data", *options]
        server = self._server = subprocess.Popen(command, user=self._user, cwd=self._folder)
        wait_for(lambda: answers(self.url("postgresql")), 60, lambda: f"postgres: {server.poll()}")

    def stop(self) -> None:
        """Stop as PostgreSQL stops fast: rolling back."""
        if self._server:
            self._server.send_signal(2)  # SIGINT
            self._server.wait(60)


@contextmanager
def cluster() -> Iterator[Postgres]:
    """Give a running server with an empty database; skip where PostgreSQL is not installed."""
    programs = needed("initdb").parent
    folder = Path(tempfile.mkdtemp(prefix="sg-pg-", dir="/tmp"))
    try:
        server = Postgres(programs, folder)
        try:
            server.start()
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def postgres() -> Iterator[str]:
    """Give the URL of an empty database; skip where PostgreSQL is not installed."""
    with cluster() as server:
        yield server.url()
