"""The database: SQLite in a file, or PostgreSQL by its URL."""

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Engine, Insert, Table, create_engine, event, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, NoSuchModuleError, SQLAlchemyError

from serve_app.errors import ConfigError, JournalUnavailable
from serve_app.journal.record import Record, is_shadow, unpack
from serve_app.journal.schema import decisions, metadata, releases, shadows

_BUSY_S = 30
"""How long a statement waits for another writer, and PostgreSQL's network for a sign of life."""
_CONNECT_S = 10
"""How long PostgreSQL may take to accept a connection."""
_WHERE = ("host", "port", "dbname")
"""Parts of the query of a URL that say which database it is."""
_ALONE = {"sqlite": "BEGIN IMMEDIATE", "postgresql": "SELECT pg_advisory_xact_lock(7236521144)"}
"""Lets one transaction at a time go on; the number is of our own."""


def from_here(url: str) -> str:
    """Return the URL with the file of an SQLite database given from the root: replicas run in other folders.

    Raises ConfigError for a URL of no database.
    """
    parsed = _parsed(url)
    if parsed.get_backend_name() != "sqlite":
        return url
    return parsed.set(database=str(Path(str(parsed.database)).absolute())).render_as_string(hide_password=False)


def is_same(url: str | None, other: str | None) -> bool:
    """Return whether two URLs are of one database, whoever it is that reaches it; None is that of no database."""
    if url is None or other is None or url == other:
        return url == other
    return _place(url) == _place(other)


def _place(url: str) -> URL:
    """Return a URL without who reaches the database, and how."""
    parsed = _parsed(url)
    where = {name: value for name, value in parsed.query.items() if name in _WHERE}
    return parsed.set(drivername=parsed.get_backend_name(), username="", password="", query=where)


def folder_of(url: str) -> str:
    """Return a name for what belongs to a database, and to no other."""
    return hashlib.sha256(str(_place(url)).encode()).hexdigest()[:16]


def _parsed(url: str) -> URL:
    known = "give sqlite:///<file> or postgresql+psycopg://<user>@<host>/<database>"
    try:
        parsed = make_url(url)
        parsed.get_dialect()
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise ConfigError(f"it cannot be used ({error}); {known}") from error
    if parsed.get_backend_name() not in _ALONE:
        raise ConfigError(f"{parsed.get_backend_name()} is none that the journal knows; {known}")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigError(f"a database in memory is gone with its process, and each router has another; {known}")
    return parsed


def connect(url: str) -> Engine:
    """Return the database at a URL of SQLAlchemy (`sqlite:///file`, `postgresql+psycopg://…`), with its tables.

    Raises ConfigError for a URL of no database, and JournalUnavailable when the database does not answer.
    """
    parsed = _parsed(url)
    engine = create_engine(parsed, pool_pre_ping=True, connect_args=_patience(parsed))
    if parsed.get_backend_name() == "sqlite":
        Path(str(parsed.database)).parent.mkdir(parents=True, exist_ok=True)
        event.listen(engine, "connect", _prepare_sqlite)
    else:
        event.listen(engine, "connect", _prepare_postgresql)
    with answering(), engine.begin() as connection:
        # Routers that start together take turns: IF NOT EXISTS alone does not keep two from making the same table.
        connection.exec_driver_sql(_ALONE[engine.dialect.name])
        metadata.create_all(connection)
        for index in (index for table in metadata.tables.values() for index in table.indexes):
            index.create(connection, checkfirst=True)  # a database of an earlier release has the table without it
    return engine


def _patience(url: URL) -> dict[str, int]:
    """Return how long libpq waits for a host that says nothing: else until the kernel gives up, in many minutes.

    What the URL says itself has the last word. https://www.postgresql.org/docs/current/libpq-connect.html
    """
    if url.get_backend_name() == "sqlite":
        return {}
    ours = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": 1000 * _BUSY_S}
    return {name: value for name, value in ours.items() if name not in url.query}


def _prepare_postgresql(connection: Any, _: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = {1000 * _BUSY_S}")
    connection.commit()


def _prepare_sqlite(connection: Any, _: Any) -> None:
    """Let readers and one writer work at once, and a commit be on disk when it returns."""
    connection.execute(f"PRAGMA busy_timeout = {1000 * _BUSY_S}")
    # SQLite waits for nobody when a new file becomes a WAL database: routers that start together would refuse to.
    with _one_at_a_time(connection):
        connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")


@contextmanager
def _one_at_a_time(connection: Any) -> Iterator[None]:
    """Let one process at a time, or one thread, work on a new SQLite database: by a lock on its folder.

    Not on its file: closing that again would let go of SQLite's own locks (POSIX).
    """
    ((_, _, file),) = connection.execute("PRAGMA database_list")
    folder = os.open(Path(file).parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


@contextmanager
def answering() -> Iterator[None]:
    """Turn what SQLAlchemy raises when a database does not answer into JournalUnavailable."""
    try:
        yield
    except IntegrityError:
        raise
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise JournalUnavailable(f"the journal's database does not answer ({type(cause).__name__})") from error


def insert_if_absent(engine: Engine, table: Table) -> Insert:
    """Return the statement that keeps rows whose key is not there yet: the same words in both, and no common class."""
    if engine.dialect.name == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    return postgresql.insert(table).on_conflict_do_nothing()


class ReleaseLines:
    """The lines of the release ledger, for `serve_app.router.releases.Ledger`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def read(self) -> list[bytes]:
        """Return all lines, oldest first."""
        with answering(), self._engine.connect() as connection:
            return [line.encode() for line in connection.scalars(select(releases.c.line).order_by(releases.c.number))]

    def newest(self) -> int:
        """Return the highest number, or 0."""
        with answering(), self._engine.connect() as connection:
            return connection.scalar(select(func.max(releases.c.number))) or 0

    def append(self, number: int, line: bytes) -> bool:
        """Keep a line, durably; False when there is one of that number already."""
        try:
            with answering(), self._engine.begin() as connection:
                connection.execute(insert(releases).values(number=number, line=line.decode()))
        except IntegrityError:
            return False
        return True


class Decisions:
    """What was decided, exactly once by `decision_id`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def keep(self, records: Sequence[bytes]) -> None:
        """Take records of `serve_app.journal.record`; the first of an id stays. Raises JournalUnavailable."""
        rows: dict[Table, list[Record]] = {}
        for record in map(unpack, records):
            rows.setdefault(shadows if is_shadow(record) else decisions, []).append(record)
        with answering(), self._engine.begin() as connection:
            for table, some in rows.items():
                connection.execute(insert_if_absent(self._engine, table), some)

    def find_all(self, decision_ids: Sequence[str]) -> dict[str, Record]:
        """Return by its id each of these decisions that is there. Raises JournalUnavailable."""
        query = select(decisions).where(decisions.c.decision_id.in_(decision_ids))
        with answering(), self._engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        # The names of columns are SQLAlchemy's own kind of text.
        return {row["decision_id"]: {str(name): value for name, value in row.items()} for row in found}
