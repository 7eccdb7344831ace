"""Changes to a folder that are there whole or not at all, through a SIGKILL at any moment.

What is in the making bears a hidden, unfinished name and is renamed when it is on disk. All changes are made under one
lock, so what bears such a name while the lock is free belongs to nobody.
"""

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = ".lock"
UNFINISHED = ".signalgraph-unfinished"
"""Ends the hidden name of a folder or link in the making."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a repository, with what killed holders left unfinished removed.

    The kernel frees the lock of a process that dies. Threads exclude one another as processes do.
    """
    lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left in folder.glob(f".*{UNFINISHED}"):
            _remove(left)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)  # closing is not enough while a forked child holds the file open
        os.close(lock)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give a hidden folder to fill. It appears at `path`, whole and on disk, when the block ends, else never.

    Raises FileExistsError when something is at `path`, before or after the block.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.parent):
        _check_free(path)
        unfinished = _unfinished(path)
        unfinished.mkdir()
        try:
            yield unfinished
            for file in unfinished.iterdir():
                _sync(file)
            _sync(unfinished)
            _rename_to_new(unfinished, path)
        except BaseException:
            _remove(unfinished)
            raise
        _sync(path.parent)


def _check_free(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, "it is there already, and a bundle never changes", str(path))


def replace_link(link: Path, target: str) -> None:
    """Let a link lead elsewhere, in one step."""
    unfinished = _unfinished(link)
    unfinished.symlink_to(target)
    unfinished.replace(link)
    _sync(link.parent)


def _rename_to_new(unfinished: Path, path: Path) -> None:
    # rename() replaces an empty folder. One that appears after the check was made by somebody who took no lock.
    _check_free(path)
    try:
        unfinished.rename(path)
    except OSError:
        _check_free(path)
        raise


def _unfinished(path: Path) -> Path:
    return path.with_name(f".{path.name}{UNFINISHED}")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def truncate(path: Path, size: int) -> None:
    """Cut a file to a size, durably."""
    if path.stat().st_size == size:
        return
    with path.open("r+b") as file:
        file.truncate(size)
        os.fsync(file.fileno())


def append(path: Path, line: bytes) -> None:
    """Append a line durably, or leave the file as it was."""
    size = path.stat().st_size if path.exists() else 0
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        _sync(path.parent)
    except BaseException:
        if path.exists():
            truncate(path, size)
        raise
