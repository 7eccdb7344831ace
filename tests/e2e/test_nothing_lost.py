"""Whatever dies under load, each answer that a client has seen is in the journal exactly once."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import create_engine, select, text

from serve_app.journal.schema import decisions
from serve_app.types import Bars
from tests.e2e.clients import Clients, asking
from tests.e2e.conftest import ROOT, is_ready, serve_run
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


KEPT_AS = {
    "decision_id": "decision_id",
    "symbol": "symbol",
    "status": "status",
    "reason": "reason",
    "prediction_probability": "probability",
    "recommended_action": "action",
    "variant": "variant",
    "model_version": "model_version",
    "bundle_digest": "bundle_digest",
    "epoch": "epoch",
}
"""Field of an answer → column of the journal."""


@pytest.mark.parametrize("kind", [sqlite, postgresql], ids=["sqlite", "postgresql"])
def test_every_answer_is_in_the_journal_exactly_once(
    kind: Callable[[Path], Any], bars: dict[str, Bars], tmp_path: Path
) -> None:
    with ExitStack() as stack:
        database: Database = stack.enter_context(kind(tmp_path))
        url = stack.enter_context(serve_run(two_routers(database), haproxy=True, journal=database.url))
        with asking(url, bars) as clients:
            everything_dies(url, clients, database)
        clients.check_others()
        assert {answer["reason"] for answer in clients.answers} <= {None, "model_unavailable", "deadline"}
        given = {answer["decision_id"]: {field: answer[field] for field in KEPT_AS} for answer in clients.answers}
        assert len(given) == len(clients.answers)
        wait_for(lambda: given.keys() <= kept(database).keys(), 60, lambda: f"lost: {given.keys() - kept(database)}")
        found = kept(database)
        assert [(given[one], found[one]) for one in given if given[one] != found[one]] == []
        # What nobody was told, in flight when a router died, was asked for all the same, and once.
        assert found.keys() <= set(clients.asked)
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


def kept(database: Database) -> dict[str, dict[str, Any]]:
    """Return what is in the journal, by the id of the decision and as it would be answered."""
    engine = create_engine(database.url)
    with engine.connect() as connection:
        found = connection.execute(select(decisions)).mappings().all()
    engine.dispose()
    return {row["decision_id"]: {field: row[column] for field, column in KEPT_AS.items()} for row in found}
