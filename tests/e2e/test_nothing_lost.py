"""Whatever dies under load, each answer that a client has seen is in the journal exactly once."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from sqlalchemy import create_engine, select, text

from serve_app.journal.schema import decisions
from serve_app.types import Bars
from tests.e2e.conftest import ROOT, is_ready, serve_run
from tests.factories import every_form, window
from tests.postgres import cluster
from tests.replicas import RUNS, kill, replicas, titled
from tests.sizes import size
from tests.waiting import wait_for

ROUTER = "signals:router"
STAGES = ("signals:preprocess", "signals:strategy", "model-production:model", "model-candidate:model")
MONITOR = "MonitorActor"


@dataclass(frozen=True)
class Database:
    """Where a journal is, and how it goes away."""

    url: str
    away: Callable[[], Any]
    """A context in which it does not answer."""


@contextmanager
def sqlite(folder: Path) -> Iterator[Database]:
    url = f"sqlite:///{folder / 'journal.db'}"

    @contextmanager
    def locked() -> Iterator[None]:
        with create_engine(url).connect() as connection:
            connection.execute(text("BEGIN EXCLUSIVE"))
            yield
            connection.rollback()

    yield Database(url, locked)


@contextmanager
def postgresql(_: Path) -> Iterator[Database]:
    with cluster() as server:

        @contextmanager
        def stopped() -> Iterator[None]:
            server.stop()
            try:
                yield
            finally:
                server.start()

        yield Database(server.url(), stopped)


def two_routers(database: Database) -> dict[str, Any]:
    """Return the staged graph of `configs/ab_test.yaml` with a journal."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "configs/ab_test.yaml").read_text())
    application = document["applications"][0]
    application["args"]["journal"] = {"url": database.url}
    router = next(one for one in application["deployments"] if one["name"] == "router")
    router["num_replicas"] = 2
    return document


class Clients:
    """Four clients who ask one after the other until told to stop; the ids of the answers that they saw."""

    def __init__(self, url: str, bars: dict[str, Bars]) -> None:
        self.seen: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._url = url
        self._bodies = [every_form(symbol, window(bars[symbol]))["columns"] for symbol in sorted(bars)[:4]]
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(4)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        with httpx2.Client(timeout=30) as client:
            while not self._over.is_set():
                for path, body in self._bodies:
                    # A proxy that takes over new routers closes connections between two requests: no answer.
                    with suppress(httpx2.RemoteProtocolError):
                        response = client.post(self._url + path, json=body)
                        self.statuses[response.status_code] += 1
                        if response.status_code == 200:
                            self.seen.append(response.json()["decision_id"])

    def wait_for_more(self) -> None:
        before = len(self.seen)
        wait_for(lambda: len(self.seen) > before + 50, 60, lambda: f"no answers: {self.statuses}")

    def stop(self) -> list[str]:
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.seen


@pytest.mark.parametrize("kind", [sqlite, postgresql], ids=["sqlite", "postgresql"])
def test_every_answer_is_in_the_journal_exactly_once(
    kind: Callable[[Path], Any], bars: dict[str, Bars], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        database: Database = stack.enter_context(kind(tmp_path))
        url = stack.enter_context(serve_run(two_routers(database), haproxy=True, journal=database.url))
        clients = Clients(url, bars)
        try:
            everything_dies(url, clients, database)
        finally:
            seen = clients.stop()
        assert len(set(seen)) == len(seen)
        missing = set(seen)

        def all_there() -> bool:
            kept = Counter(ids(database))
            missing.difference_update(kept)
            assert set(kept.values()) == {1}
            return not missing

        wait_for(all_there, 60, lambda: f"{len(missing)} of {len(seen)} answers are not in the journal")
        # Of what clients did not see (those in flight when a router died), at most what was in flight was kept.
        wait_for(partial(is_ready, url), 60, lambda: "not ready again")


def everything_dies(url: str, clients: Clients, database: Database) -> None:
    run_id = RUNS[url]
    for _ in range(size("rounds of kills of every stage")):
        for deployment in (ROUTER, *STAGES):
            clients.wait_for_more()
            kill(run_id, deployment)
        (monitor,) = titled(run_id, MONITOR)
        monitor.kill()
        clients.wait_for_more()
    with database.away():
        until = time.monotonic() + size("seconds without a database")
        clients.wait_for_more()
        replicas(run_id, ROUTER)[0].kill()  # another starts, and waits for the ledger
        clients.wait_for_more()
        wait_for(lambda: time.monotonic() > until, 60, lambda: "")
        clients.wait_for_more()
    clients.wait_for_more()
    wait_for(lambda: len(replicas(run_id, ROUTER)) == 2, 60, lambda: "no new router")
    kill(run_id, ROUTER)
    clients.wait_for_more()


def ids(database: Database) -> list[str]:
    engine = create_engine(database.url)
    with engine.connect() as connection:
        found = list(connection.execute(select(decisions.c.decision_id)).scalars())
    engine.dispose()
    return found
