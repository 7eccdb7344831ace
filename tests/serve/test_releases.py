"""Releases of a running graph: every router follows the ledger, and each answer is from one epoch of it."""

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ray import serve
from sqlalchemy import select

from deployments import graph as graph_module
from deployments import processes
from deployments.graph import build_app
from serve_app.api import CONTROL_KEY
from serve_app.config import AlertName, AlertsConfig, AppConfig, JournalConfig, MonitorConfig, Rule, Topology
from serve_app.journal import connect
from serve_app.journal.schema import decisions, shadows
from serve_app.router.releases import Entry, Release
from serve_app.types import Bars
from tests.factories import every_form, window
from tests.replicas import kill
from tests.serve.conftest import POISON, app_config, wait_until_ready
from tests.serve.requests import with_sentiment
from tests.sizes import size
from tests.waiting import wait_for

SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
KEY = {"Authorization": "Bearer control"}
AGREED_S = 2.0
"""After this long every router answers from the new epoch."""
CHANGES: list[tuple[str, dict[str, Any]]] = [
    ("shadow", {"shadow": True}),
    ("split", {"candidate_share": 0.5}),
    ("promote", {}),
    ("shadow", {"shadow": True}),
    ("split", {"candidate_share": 1.0}),
    ("thresholds", {"variant": "production", "thresholds": {"signal_threshold": 0.1, "holding_unit": "bars"}}),
    ("rollback", {}),
    ("rollback", {}),
]


@dataclass(frozen=True)
class Graph:
    """A running graph, and what it was started with."""

    url: str
    name: str
    config: AppConfig


def deploy(name: str, config: AppConfig) -> None:
    """Run a graph with two replicas of each deployment, or run it again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CONTROL_KEY, "control")
        for options in (graph_module._ROUTER, graph_module._STAGE):
            patch.setitem(options, "num_replicas", 2)
        serve.run(build_app(config), name=name, route_prefix=f"/{name}")


@pytest.fixture(scope="module", params=[Topology.STAGED, Topology.FUSED], ids=str)
def graph(
    request: pytest.FixtureRequest,
    graphs: dict[str, str],
    http_port: int,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Graph]:
    """With a ledger of its own."""
    assert graphs  # with the models that it asks
    name = f"released-{request.param}"
    folder = tmp_path_factory.mktemp("journal")
    journal = JournalConfig(url=f"sqlite:///{folder / 'journal.db'}", spool=str(folder / "spool"))
    # How long answers take on a machine that is busy ends no promotion here.
    rules = AlertsConfig(abstention_rate=Rule(limit=0.05, window=20), roll_back=(AlertName.ABSTENTION_RATE,))
    config = with_bundles(app_config(request.param, share=0.0), repository)
    config = config.model_copy(update={"journal": journal, "monitor": MonitorConfig(alerts=rules)})
    deploy(name, config)
    url = f"http://127.0.0.1:{http_port}/{name}"
    wait_until_ready(f"{url}/v2/health/ready")
    yield Graph(url, name, config)
    serve.delete(name)


def with_bundles(config: AppConfig, repository: Path) -> AppConfig:
    """Name the same bundles where other versions lie beside them."""
    document = config.model_dump(mode="json")
    for name, version in (("production", "v1.0"), ("candidate", "v1.1")):
        document["variants"][name]["bundle"] = str(repository / version)
    return AppConfig.model_validate(document)


def change(url: str, name: str, **fields: Any) -> Entry:
    response = httpx2.post(
        f"{url}/v1/releases:{name}", json={"who": "ada", "why": "a test", **fields}, headers=KEY, timeout=60
    )
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    del document["versions"]
    return Entry.model_validate(document)


def releases_of(graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = httpx2.get(f"{graph.url}/v1/releases", timeout=60).json()
    return found


def in_force(graph: Graph) -> dict[str, Any]:
    found: dict[str, Any] = releases_of(graph)["in_force"]
    return found


def with_candidate(graph: Graph, version: str) -> str:
    """Make a version the candidate of v1.0, whatever the test before left; return its digest."""
    while in_force(graph)["versions"]["production"] != "v1.0":
        change(graph.url, "rollback")
    if in_force(graph)["versions"]["candidate"] != version:
        change(graph.url, "candidate", version=version)
    digest: str = in_force(graph)["release"]["candidate"]
    return digest


class Load:
    """Requests for every symbol, one after the other, from several threads; what came back, and when it was asked."""

    def __init__(self, url: str, bars: dict[str, Bars], threads: int = 3, sentiment: float | None = None) -> None:
        self.answers: list[tuple[float, dict[str, Any]]] = []
        self._url = url
        self._bodies = [every_form(symbol, window(bars[symbol]))["columns"] for symbol in SYMBOLS]
        if sentiment is not None:
            asked = [with_sentiment(symbol, window(bars[symbol]), sentiment) for symbol in SYMBOLS]
            self._bodies = [("/v1/signals", body) for body in asked]
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(threads)
        self._running = [self._pool.submit(self._ask) for _ in range(threads)]

    def _ask(self) -> None:
        with httpx2.Client(timeout=30) as client:
            while not self._over.is_set():
                for path, body in self._bodies:
                    asked = time.monotonic()
                    response = client.post(self._url + path, json=body)
                    assert response.status_code == 200, response.text
                    self.answers.append((asked, response.json()))

    def has_met(self, epoch: int, answers: int = 1) -> bool:
        """Whether so many answers have come from it."""
        return len([answer for _, answer in list(self.answers) if answer["epoch"] == epoch]) >= answers

    def has_asked_after(self, at: float, answers: int = 10) -> bool:
        """Whether so many answers have come to what was asked after a time."""
        return len([asked for asked, _ in list(self.answers) if asked > at]) >= answers

    def all_meet(self, epoch: int) -> bool:
        """Whether, of two routers that are asked at random, both answer from it."""
        return len(self.answers) >= 40 and all(answer["epoch"] == epoch for _, answer in self.answers[-40:])

    def stop(self) -> list[tuple[float, dict[str, Any]]]:
        self._over.set()
        for thread in self._running:
            thread.result()
        self._pool.shutdown()
        return self.answers


def test_changes_under_load_lose_nothing_and_every_answer_agrees_with_the_ledger(
    graph: Graph, bars: dict[str, Bars]
) -> None:
    load, changed = Load(graph.url, bars), []
    for i in range(size("releases under load")):
        name, fields = CHANGES[i % len(CHANGES)]
        changed.append((change(graph.url, name, **fields), time.monotonic()))
        wait_for(partial(load.has_met, changed[-1][0].epoch, answers=10), 30, lambda: "not followed")
    agreed = changed[-1][1] + AGREED_S
    wait_for(partial(load.has_asked_after, agreed), 30, lambda: "nobody asks any more")
    answers = load.stop()
    entries = {entry["epoch"]: entry for entry in releases_of(graph)["history"]}
    for asked, answer in answers:
        assert answer["status"] == "ok", answer
        entry = entries[answer["epoch"]]
        release = entry["release"]
        variant = Release.model_validate(release).assigned().variant(answer["symbol"])
        assert answer["variant"] == variant
        assert answer["bundle_digest"] == release[variant]
        assert answer["model_version"] == entry["versions"][variant]
        newest = max((e.epoch for e, at in changed if at + AGREED_S < asked), default=1)
        assert answer["epoch"] >= newest
    assert {entry.epoch for entry, _ in changed} <= {answer["epoch"] for _, answer in answers}
    given = {answer["decision_id"]: answer["epoch"] for _, answer in answers}
    assert len(given) == len(answers)
    wait_for(lambda: given.items() <= kept(graph).items(), 10, lambda: "an answer is not in the journal")
    check_shadows(graph, {answer["decision_id"]: answer for _, answer in answers}, entries)
    for i in list(given)[:: max(1, len(given) // 20)]:
        replay = httpx2.post(f"{graph.url}/v1/decisions/{i}:replay", timeout=30).json()
        assert replay["agrees"], replay


def check_shadows(graph: Graph, answers: dict[str, dict[str, Any]], entries: dict[int, Any]) -> None:
    """Each is of the variant that did not answer, in the epoch that did, and there are some unless nothing was on."""
    on = [one for one in answers.values() if entries[one["epoch"]]["release"]["shadow"]]
    assert on
    assert graph.config.journal is not None
    query = select(shadows).where(shadows.c.status == "ok")
    with connect(graph.config.journal.url).connect() as connection:
        found = connection.execute(query).mappings().all()
    assert found
    for row in found:
        answer, release = answers[row["decision_id"]], entries[row["epoch"]]["release"]
        assert (row["epoch"], row["symbol"]) == (answer["epoch"], answer["symbol"])
        assert release["shadow"]
        assert {row["variant"], answer["variant"]} == {"production", "candidate"}
        assert row["bundle_digest"] == release[row["variant"]]


def kept(graph: Graph) -> dict[str, int]:
    """Return the epoch of every decision in the journal."""
    assert graph.config.journal is not None
    with connect(graph.config.journal.url).connect() as connection:
        found = connection.execute(select(decisions.c.decision_id, decisions.c.epoch))
        return {row[0]: row[1] for row in found}


def everywhere(client: httpx2.Client, url: str, path: str, body: dict[str, Any], epoch: int) -> bool:
    """Whether twenty requests in a row, which both routers share, are answered from an epoch."""
    return {client.post(url + path, json=body).json()["epoch"] for _ in range(20)} == {epoch}


def test_thresholds_of_a_release_decide(graph: Graph, bars: dict[str, Bars], client: httpx2.Client) -> None:
    path, body = every_form("IBM", window(bars["IBM"]))["columns"]
    actions = []
    for threshold in (0.0, 1.0):
        thresholds = {"signal_threshold": threshold, "holding_unit": "bars"}
        epoch = change(graph.url, "thresholds", variant="production", thresholds=thresholds).epoch
        wait_for(partial(everywhere, client, graph.url, path, body, epoch), 30, lambda: "not followed")
        actions.append(client.post(graph.url + path, json=body).json()["recommended_action"])
    assert actions == ["BUY", "HOLD"]


def test_a_version_that_the_graph_was_not_started_with_becomes_production_and_goes_again(
    graph: Graph, bars: dict[str, Bars]
) -> None:
    with_candidate(graph, "v1.1")
    before = change(graph.url, "split", candidate_share=0.0).release
    load, epochs = Load(graph.url, bars), {}
    for name, fields in (
        ("candidate", {"version": "v1.2"}),
        ("split", {"candidate_share": 1.0}),
        ("promote", {}),
        ("rollback", {}),
    ):
        entry = change(graph.url, name, **fields)
        epochs[entry.epoch] = entry.release
        wait_for(partial(load.has_met, entry.epoch), 30, lambda: "not followed")
    answers = [answer for _, answer in load.stop()]
    assert all(answer["status"] == "ok" for answer in answers)
    served = {answer["epoch"]: (answer["variant"], answer["model_version"]) for answer in answers}
    assert [served[epoch] for epoch in epochs] == [
        ("production", "v1.0"), ("candidate", "v1.2"), ("production", "v1.2"), ("production", "v1.0")
    ]  # fmt: skip
    assert list(epochs.values())[-1].production == before.production


@pytest.mark.parametrize("graph", [Topology.STAGED], indirect=True, ids=str)
@pytest.mark.parametrize("deployment", ["model-candidate:model", "released-staged:preprocess"])
def test_a_replica_that_joins_holds_what_the_others_hold(graph: Graph, deployment: str) -> None:
    candidate = with_candidate(graph, "v1.2")
    application, name = deployment.split(":")
    replicas = serve.get_deployment_handle(name, application)

    def held() -> list[list[str]]:
        return replicas.broadcast("held").results(timeout_s=30)

    before = held()
    assert len(before) == 2  # of one alone, nobody is left to ask
    assert all(candidate in digests for digests in before)
    kill(os.environ[processes.RUN_ID], deployment)
    wait_for(lambda: len(held()) == 2, 30, lambda: f"{held()}")
    assert all(candidate in digests for digests in held())
    with_candidate(graph, "v1.1")


@pytest.mark.parametrize(
    ("version", "reason"),
    [("v1.3", "golden case 0: logit is"), ("v1.4", "holds no v1.4, but v1.0, v1.1, v1.2, v1.3")],
)
def test_a_version_that_cannot_be_loaded_changes_nothing(
    graph: Graph, bars: dict[str, Bars], version: str, reason: str
) -> None:
    before = in_force(graph)
    load = Load(graph.url, bars)
    body = {"who": "ada", "why": "a test", "version": version}
    response = httpx2.post(f"{graph.url}/v1/releases:candidate", json=body, headers=KEY, timeout=60)
    assert response.status_code == 409
    assert reason in response.json()["error"]
    newest = releases_of(graph)["history"][-1]
    assert (newest["epoch"], newest["step"], newest["release"]) == (before["epoch"], "failed", before["release"])
    assert reason in newest["error"]
    assert len(newest["error"].splitlines()) == 1  # and no trace, which names addresses and files
    answers = [answer for _, answer in load.stop()]
    assert {answer["status"] for answer in answers} == {"ok"}
    assert max(answer["epoch"] for answer in answers) == before["epoch"]


PLAN: dict[str, Any] = {
    "pins": ["IBM"],
    "shares": [0.5],
    "step_s": 1,
    "guardrails": {"min_answers": 20, "max_p95_ratio": 1_000},
}


def test_a_guarded_promotion_goes_to_its_end_by_itself(graph: Graph, bars: dict[str, Bars]) -> None:
    with_candidate(graph, "v1.2")
    load = Load(graph.url, bars)
    begun = change(graph.url, "promote", plan=PLAN)
    wait_for(lambda: in_force(graph)["release"]["plan"] is None, 120, lambda: str(in_force(graph)))
    answers = load.stop()
    assert {answer["status"] for _, answer in answers} == {"ok"}
    history = releases_of(graph)["history"]
    steps = [(entry["step"], entry["who"]) for entry in history if entry["epoch"] >= begun.epoch]
    assert steps == [("guard", "ada"), *[("advance", "guard")] * 2, ("promote", "guard"), ("advance", "guard")]
    assert in_force(graph)["versions"]["production"] == "v1.2"
    change(graph.url, "rollback")


@pytest.mark.parametrize("graph", [Topology.STAGED], indirect=True, ids=str)
def test_a_candidate_that_begins_to_fail_goes_back_by_itself(graph: Graph, bars: dict[str, Bars]) -> None:
    with_candidate(graph, "v1.1")
    begun = change(graph.url, "promote", plan={**PLAN, "step_s": 600, "pins": []})
    # In an epoch before, production may be what fails here: the candidate that the former test had promoted.
    healthy = Load(graph.url, bars)
    wait_for(lambda: healthy.all_meet(begun.epoch), 30, lambda: f"epoch {begun.epoch}: {healthy.answers[-1:]}")
    healthy.stop()
    load = Load(graph.url, bars, sentiment=POISON)
    wait_for(lambda: in_force(graph)["release"]["plan"] is None, 60, lambda: str(in_force(graph)))
    answers = load.stop()
    found = {(answer["reason"], answer["variant"], answer["model_version"]) for _, answer in answers}
    assert found == {(None, "production", "v1.0")}
    entry = in_force(graph)
    assert (entry["step"], entry["who"]) == ("rollback", "guard")
    assert "abstained, more than 2.0%" in entry["why"]
    assert entry["release"]["shadow"] is False


def of_candidate(graph: Graph, known: str) -> list[dict[str, Any]]:
    """Return the alerts, or the events, that say how often the candidate abstains."""
    found: list[dict[str, Any]] = httpx2.get(f"{graph.url}/v1/alerts", timeout=30).json()[known]
    return [one for one in found if (one["alert"], one["subject"]) == ("abstention_rate", "candidate")]


def fail_on_trial(graph: Graph, bars: dict[str, Bars]) -> Entry:
    """Let the candidate begin to fail once it answers, where only an alert may end its promotion; return what did."""
    rails = {**PLAN["guardrails"], "max_abstain_rate": 1}
    # The last step waits for evidence, which never comes.
    begun = change(graph.url, "promote", plan={**PLAN, "pins": [], "guardrails": rails, "wait_for_evidence": True})
    healthy = Load(graph.url, bars)
    wait_for(lambda: healthy.all_meet(begun.epoch + 1), 60, lambda: f"{in_force(graph)} {healthy.answers[-1:]}")
    healthy.stop()
    failing = Load(graph.url, bars, sentiment=POISON)
    wait_for(
        lambda: in_force(graph)["release"]["plan"] is None,
        60,
        lambda: f"{in_force(graph)} {failing.answers[-1:]} {of_candidate(graph, 'alerts')}",
    )
    failing.stop()
    entry = in_force(graph)
    del entry["versions"]
    return Entry.model_validate(entry)


@pytest.mark.parametrize("graph", [Topology.STAGED], indirect=True, ids=str)
@pytest.mark.parametrize("version", ["v1.1", "v1.2"])
def test_each_candidate_goes_back_by_an_alert_of_its_own(graph: Graph, bars: dict[str, Bars], version: str) -> None:
    with_candidate(graph, version)
    entry = fail_on_trial(graph, bars)
    assert (entry.step, entry.who) == ("rollback", "guard")
    assert entry.why.startswith("abstention_rate: "), entry.why
    wait_for(lambda: of_candidate(graph, "alerts") == [], 30, lambda: str(of_candidate(graph, "alerts")))
    resolved, fired = of_candidate(graph, "events")[:2]
    assert [(one["state"], one["model_version"]) for one in (fired, resolved)] == [
        ("firing", version),
        ("resolved", version),
    ]
    assert resolved["message"] == f"{version} answers nobody as candidate any more"


def test_a_graph_that_starts_again_comes_back_in_the_last_epoch(
    graph: Graph, bars: dict[str, Bars], client: httpx2.Client
) -> None:
    epoch = change(graph.url, "split", candidate_share=1.0).epoch
    deploy(graph.name, graph.config)
    path, body = every_form("IBM", window(bars["IBM"]))["columns"]
    wait_for(partial(everywhere, client, graph.url, path, body, epoch), 60, lambda: "another epoch")
    assert client.post(graph.url + path, json=body).json()["variant"] == "candidate"
