"""The spool: nothing that was appended is lost, whatever happens to its router or to the database."""

import fcntl
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from serve_app.errors import JournalUnavailable, SpoolUnavailable
from serve_app.journal import spool as module
from serve_app.journal.spool import DAMAGED, SUFFIX, TURN_S, Damaged, Spool, framed
from tests.sizes import size

ROOT = Path(__file__).parents[3]


class Database:
    """Takes contents, unless it is away."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.away = False

    def keep(self, contents: Sequence[bytes]) -> None:
        if self.away:
            raise JournalUnavailable("away")
        self.kept.extend(contents)


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    spool = Spool(tmp_path / "spool", segment_bytes=1000)
    yield spool
    spool.close()


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def test_what_is_appended_is_shipped_once_in_its_order(spool: Spool, database: Database) -> None:
    records = [bytes([i]) * i for i in range(1, 200)]
    for i in range(0, len(records), 3):
        spool.append(records[i : i + 3])
        if i % 30 == 0:
            spool.ship(database.keep)
    spool.ship(database.keep)
    assert database.kept == records
    assert spool.ship(database.keep) == 0


def test_full_files_are_removed_when_they_are_shipped(spool: Spool, database: Database, tmp_path: Path) -> None:
    for _ in range(10):
        spool.append([b"x" * 600])
    assert len(files(tmp_path / "spool")) == 5
    assert spool.ship(database.keep) == 10
    assert len(files(tmp_path / "spool")) == 1


def test_what_is_turned_over_while_it_is_shipped_is_shipped_with_it_and_in_its_order(tmp_path: Path) -> None:
    """Whoever waits until it is shipped may have to wait for a file that is the current one no more."""
    spool = Spool(tmp_path / "spool", segment_bytes=10)
    kept: list[bytes] = []

    def keep(contents: Sequence[bytes]) -> None:
        kept.extend(contents)
        if len(kept) < 5:
            spool.append([b"another %d" % len(kept)])  # as the event loop may, at any time: each in a file of its own

    spool.append([b"the first"])
    spool.ship(keep)
    assert kept == [b"the first", *(b"another %d" % i for i in range(1, 5))]
    spool.close()


def test_a_file_with_something_in_it_is_followed_by_another_in_time(database: Database, tmp_path: Path) -> None:
    now = [0.0]
    spool = Spool(tmp_path / "spool", clock=lambda: now[0])

    def turned_over(at: float) -> bool:
        now[0], before = at, files(tmp_path / "spool")
        spool.turn_over()
        spool.ship(database.keep)
        return files(tmp_path / "spool") != before

    assert not turned_over(2 * TURN_S)  # there is nothing in it
    spool.append([b"a"])
    assert turned_over(2 * TURN_S)
    spool.append([b"b"])
    assert [turned_over(3 * TURN_S - 1), turned_over(3 * TURN_S)] == [False, True]
    assert database.kept == [b"a", b"b"]
    assert [file.stat().st_size for file in files(tmp_path / "spool")] == [0]
    spool.close()


def test_while_the_database_is_away_nothing_is_forgotten(spool: Spool, database: Database) -> None:
    spool.append([b"a"])
    spool.ship(database.keep)
    database.away = True
    for content in (b"b", b"c" * 2000, b"d"):
        spool.append([content])
        with pytest.raises(JournalUnavailable):
            spool.ship(database.keep)
    database.away = False
    assert spool.ship(database.keep) == 3
    assert database.kept == [b"a", b"b", b"c" * 2000, b"d"]


def test_a_record_larger_than_what_is_read_at_once_is_shipped(
    spool: Spool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ", 64)
    records = [b"a" * 10, b"b" * 1000, b"c" * 10]
    spool.append(records)
    spool.ship(database.keep)
    assert database.kept == records


def test_routers_leave_each_other_s_files_alone_and_adopt_those_of_the_dead(
    spool: Spool, database: Database, tmp_path: Path
) -> None:
    other = Spool(tmp_path / "spool")
    other.append([b"other"])
    spool.append([b"mine"])
    assert spool.ship(database.keep) == 1
    other.close()  # as the kernel does for the dead
    assert spool.ship(database.keep) == 1
    assert database.kept == [b"mine", b"other"]
    assert len(files(tmp_path / "spool")) == 1


@pytest.mark.parametrize("becomes", [None, DAMAGED])
def test_an_orphan_that_another_router_took_meanwhile_is_its_own(
    spool: Spool, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, becomes: str | None
) -> None:
    """Between opening it and asking for its lock the other had locked, shipped and removed it, or set it aside."""
    orphan = tmp_path / "spool" / f"orphan{SUFFIX}"
    orphan.write_bytes(framed(b"left") + b"cut")
    lock = fcntl.flock

    def after_the_other(file: int, how: int) -> None:
        if becomes is None:
            orphan.unlink()
        else:
            orphan.rename(orphan.with_suffix(becomes))
        lock(file, how)

    monkeypatch.setattr(fcntl, "flock", after_the_other)
    assert spool.ship(database.keep) == 0
    assert database.kept == []


def test_an_orphan_stays_while_the_database_is_away(spool: Spool, database: Database, tmp_path: Path) -> None:
    orphan = tmp_path / "spool" / f"orphan{SUFFIX}"
    orphan.write_bytes(framed(b"left"))
    database.away = True
    with pytest.raises(JournalUnavailable):
        spool.ship(database.keep)
    database.away = False
    spool.ship(database.keep)
    assert database.kept == [b"left"]
    assert not orphan.exists()


@pytest.mark.parametrize("cut", range(1, 12))
def test_of_a_write_that_was_cut_short_the_whole_frames_are_shipped(
    spool: Spool, database: Database, tmp_path: Path, cut: int
) -> None:
    orphan = tmp_path / "spool" / f"orphan{SUFFIX}"
    orphan.write_bytes((framed(b"whole") + framed(b"cut"))[:-cut])
    spool.ship(database.keep)
    assert database.kept == [b"whole"]
    assert not orphan.exists()
    # Whether a router died or a disk broke, nobody can tell: what is left is kept. Of the last cut nothing is left.
    assert orphan.with_suffix(DAMAGED).exists() == (cut < len(framed(b"cut")))


def test_a_damaged_file_is_kept_for_whoever_can_read_it(
    spool: Spool, database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    orphan = tmp_path / "spool" / f"orphan{SUFFIX}"
    written = bytearray(framed(b"first") + framed(b"second") + framed(b"third"))
    written[20] ^= 1
    orphan.write_bytes(written)
    spool.append([b"mine"])
    spool.ship(database.keep)
    assert database.kept == [b"mine", b"first"]
    assert orphan.with_suffix(DAMAGED).read_bytes() == written
    assert "no whole records" in caplog.text


def test_a_length_that_a_broken_disk_changed_hides_nothing(spool: Spool, database: Database, tmp_path: Path) -> None:
    orphan = tmp_path / "spool" / f"orphan{SUFFIX}"
    written = bytearray(framed(b"first") + framed(b"second") + framed(b"third"))
    written[16] = 0x7F  # of the second's length
    orphan.write_bytes(written)
    spool.ship(database.keep)
    assert database.kept == [b"first"]
    assert orphan.with_suffix(DAMAGED).read_bytes() == written


def test_a_router_whose_own_file_breaks_says_so(spool: Spool, database: Database, tmp_path: Path) -> None:
    spool.append([b"first", b"second"])
    (mine,) = files(tmp_path / "spool")
    with mine.open("r+b") as file:
        file.seek(20)
        file.write(b"?")
    with pytest.raises(Damaged):
        spool.ship(database.keep)
    assert database.kept == [b"first"]


def test_what_a_full_disk_cut_short_is_taken_back_and_refused(
    spool: Spool, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.append([b"before"])
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda file, data: write(file, data[:5]))
        with pytest.raises(SpoolUnavailable, match="so none is given"):
            spool.append([b"refused"])
    spool.append([b"after"])
    spool.ship(database.keep)
    assert database.kept == [b"before", b"after"]


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SpoolUnavailable, match="decisions cannot be kept"):
        Spool(tmp_path / "file")


WRITER = """
import sys
from pathlib import Path
from serve_app.journal.spool import Spool

spool = Spool(Path(sys.argv[1]), segment_bytes=20_000)
print("ready", flush=True)
sys.stdin.readline()
for i in range(10**9):
    spool.append([f"{sys.argv[2]} {i} ".encode() * 50])
    print(i, flush=True)
"""
"""Appends until it is killed, and says the number of each record when it is kept."""


def test_what_a_killed_router_had_kept_arrives_once(spool: Spool, database: Database, tmp_path: Path) -> None:
    chance = random.Random(11)  # noqa: S311
    for number in range(size("routers that are killed")):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "spool"), str(number)]
        with subprocess.Popen(command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "ready\n"
            assert writer.stdin is not None
            writer.stdin.write("go\n")
            writer.stdin.flush()
            said = [writer.stdout.readline() for _ in range(chance.randrange(1, 300))]
            spool.ship(database.keep)  # as routers that live do meanwhile
            writer.send_signal(signal.SIGKILL)
            said += writer.stdout.readlines()
        assert writer.returncode == -signal.SIGKILL
        acknowledged = sum(line.endswith("\n") for line in said)
        spool.ship(database.keep)
        found = [content for content in database.kept if content.startswith(b"%d " % number)]
        assert len(found) in (acknowledged, acknowledged + 1)  # the last may have been kept and not said
        # Which of its files comes first does not matter.
        assert sorted(found) == sorted(f"{number} {i} ".encode() * 50 for i in range(len(found)))
    assert len(files(tmp_path / "spool")) == 1
