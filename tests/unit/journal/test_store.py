"""The ledger's lines, in either database."""

import socket
import threading
from multiprocessing import Queue, get_context
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from sqlalchemy import exc, text
from sqlalchemy.engine import make_url

from serve_app.errors import ConfigError, JournalUnavailable
from serve_app.journal import ReleaseLines, connect, from_here, is_same, store
from serve_app.journal.schema import metadata
from serve_app.journal.store import Decisions, _patience, answering
from tests.sizes import size

TOGETHER_S = 30
"""How long those that start together wait for each other; then one of them has died, and none may wait for it."""


@pytest.fixture
def lines(url: str) -> ReleaseLines:
    engine = connect(url)
    metadata.drop_all(engine)
    return ReleaseLines(connect(url))


def test_lines_come_back_in_their_order_byte_for_byte(lines: ReleaseLines, url: str) -> None:
    assert lines.newest() == 0
    kept = [f'{{"why": "ÖBB {i} \\u0000"}}'.encode() for i in range(1, 13)]
    assert all(lines.append(i, line) for i, line in enumerate(kept, start=1))
    assert (lines.read(), lines.newest()) == (kept, 12)
    assert ReleaseLines(connect(url)).read() == kept  # another process


def test_of_many_writers_of_one_number_one_succeeds(lines: ReleaseLines) -> None:
    outcomes: list[bool] = []
    together = threading.Barrier(8, timeout=TOGETHER_S)

    def write(i: int) -> None:
        together.wait()
        outcomes.append(lines.append(1, f"writer {i}".encode()))

    writers = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(8)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert sorted(outcomes) == [False] * 7 + [True]
    assert len(lines.read()) == 1


def test_sqlite_is_durable_and_lets_readers_read_while_one_writes(tmp_path: Path) -> None:
    engine = connect(f"sqlite:///{tmp_path / 'journal.db'}")
    lines = ReleaseLines(engine)
    with engine.begin() as writing:
        writing.execute(text("INSERT INTO releases VALUES (1, 'half way')"))
        assert lines.read() == []
    with engine.connect() as connection:
        assert connection.scalar(text("PRAGMA journal_mode")) == "wal"
        assert connection.scalar(text("PRAGMA synchronous")) == 2


def test_a_file_is_found_from_any_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert from_here("sqlite:///kept/journal.db") == f"sqlite:///{tmp_path}/kept/journal.db"
    for url in (f"sqlite:///{tmp_path}/a.db", "postgresql+psycopg://ada:secret@db/journal"):
        assert from_here(url) == url


@pytest.mark.parametrize(
    "url",
    ["journal.db", "sqlite://", "sqlite:///:memory:", "nosuch://x", "postgresql+nosuch://x/y", "mysql+pymysql://x/y"],
)
def test_a_url_that_is_none_is_told_what_one_is(url: str) -> None:
    with pytest.raises(ConfigError, match="give sqlite:///<file> or postgresql"):
        connect(url)
    with pytest.raises(ConfigError, match="give sqlite:///<file> or postgresql"):
        from_here(url)


def test_a_database_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="does not answer"):
        connect("postgresql+psycopg://nobody@127.0.0.1:1/none")
    with pytest.raises(JournalUnavailable, match=r"does not answer \(TimeoutError\)"), answering():
        raise exc.TimeoutError("no connection of the pool is free")  # SQLAlchemy's, which is no error of a driver
    (tmp_path / "file").write_text("not a database, and longer than the hundred bytes of a header" * 3)
    with pytest.raises(JournalUnavailable, match="does not answer"):
        connect(f"sqlite:///{tmp_path / 'file'}")


def test_a_host_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_CONNECT_S", 2)  # the least that libpq knows
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://nobody@127.0.0.1:{silent.getsockname()[1]}/none"
        with pytest.raises(JournalUnavailable, match="does not answer"):
            connect(url)


def test_a_writer_that_never_ends_is_not_waited_for(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(postgres_url).begin() as other:
        other.execute(text("LOCK TABLE decisions"))
        monkeypatch.setattr(store, "_BUSY_S", 1)
        with pytest.raises(JournalUnavailable, match=r"does not answer \(LockNotAvailable\)"):
            Decisions(connect(postgres_url)).find_all(["one"])


def test_the_url_has_the_last_word_on_how_long_to_wait() -> None:
    given = make_url("postgresql+psycopg://ada@db/journal?connect_timeout=3")
    assert _patience(given) == {"tcp_user_timeout": 30_000}


def connected(url: str, together: Barrier, outcomes: "Queue[str]") -> None:
    try:
        together.wait()
        connect(url)
    except Exception as error:  # noqa: BLE001  whatever it is, the test names it
        outcomes.put(repr(error))
    else:
        outcomes.put("connected")


def test_routers_that_start_together_on_an_empty_database_all_get_it(url: str) -> None:
    metadata.drop_all(connect(url))
    spawn = get_context("spawn")
    together, outcomes = spawn.Barrier(4, timeout=TOGETHER_S), spawn.Queue()
    routers = [spawn.Process(target=connected, args=(url, together, outcomes), daemon=True) for _ in range(4)]
    for router in routers:
        router.start()
    assert [outcomes.get(timeout=60) for _ in routers] == ["connected"] * 4
    for router in routers:
        router.join()


def connected_to_each(urls: list[str], together: Barrier, outcomes: "Queue[list[str]]") -> None:
    mine: Queue[str] = Queue()
    for url in urls:
        connected(url, together, mine)
    outcomes.put([mine.get() for _ in urls])


def test_routers_that_start_together_make_a_new_sqlite_file_once(tmp_path: Path) -> None:
    """Whoever turns it into a WAL database may be in the way of the others."""
    urls = [f"sqlite:///{tmp_path / str(i)}.db" for i in range(size("new databases"))]
    spawn = get_context("spawn")
    together, outcomes = spawn.Barrier(4, timeout=TOGETHER_S), spawn.Queue()
    arguments = (urls, together, outcomes)
    routers = [spawn.Process(target=connected_to_each, args=arguments, daemon=True) for _ in range(4)]
    for router in routers:
        router.start()
    assert [outcomes.get(timeout=120) for _ in routers] == [["connected"] * len(urls)] * 4
    for router in routers:
        router.join()


@pytest.mark.parametrize(
    ("url", "other", "expected"),
    [
        (None, None, True),
        (None, "sqlite:////a/journal.db", False),
        ("sqlite:////a/journal.db", "sqlite:////a/journal.db", True),
        ("sqlite:////a/journal.db", "sqlite:////b/journal.db", False),
        ("postgresql+psycopg://ada:old@host/journal", "postgresql+psycopg://bob:new@host/journal", True),
        ("postgresql+psycopg://ada@host/journal", "postgresql+psycopg://host/journal", True),
        ("postgresql+psycopg://ada@host/journal", "postgresql+psycopg://ada@host:5433/journal", False),
        ("postgresql+psycopg:///journal?host=/run/a", "postgresql+psycopg:///journal?host=/run/b", False),
    ],
)
def test_a_database_is_the_same_whoever_reaches_it(url: str | None, other: str | None, expected: bool) -> None:
    assert is_same(url, other) is is_same(other, url) is expected
