"""What goes wrong in a running graph is told: each rule fires once and is resolved once, wherever one looks."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psutil
import pytest
import yaml
from sqlalchemy import create_engine, func, select

from serve_app.journal.schema import decisions
from serve_app.monitor import memory_in_use
from serve_app.types import Bars
from tests.e2e.conftest import ROOT, serve_run
from tests.e2e.slow_on_demand import HANGS, SLOW
from tests.factories import window, with_columns
from tests.prometheus import Prometheus, prometheus
from tests.receiver import Receiver
from tests.replicas import FOLDERS, RUNS, titled
from tests.serve.requests import with_sentiment
from tests.sizes import size
from tests.waiting import wait_for

FINE = 0.5
KEY = "a secret of the receiver"
N = 20
"""Predictions that a rule looks at, here."""
GRAPH_MEMORY = 0.2
"""As a share of the machine: more than the graph itself needs."""


class Graph:
    """A running graph, and what its client does."""

    def __init__(
        self, url: str, journal: str, receiver: Receiver, bars: dict[str, Bars], log: Path, memory_limit: float
    ) -> None:
        self.url = url
        self.log = log
        self.memory_limit = memory_limit
        self.journal = journal
        self.receiver = receiver
        self._bars = bars

    def ask(
        self,
        n: int,
        symbol: str = "IBM",
        sentiment: float = FINE,
        volume: float = 1.0,
        request_id: str | None = None,
    ) -> list[dict[str, Any]]:
        """Ask n times, one after the other, each about another bar."""
        headers = {"X-Request-Id": request_id} if request_id else {}
        with httpx2.Client(timeout=30, headers=headers) as client:
            return [self._asked(client, symbol, ago % 200, sentiment, volume) for ago in range(n)]

    def _asked(
        self, client: httpx2.Client, symbol: str, ago: int, sentiment: float = FINE, volume: float = 1.0
    ) -> dict[str, Any]:
        bars = window(self._bars.get(symbol, self._bars["IBM"]), ago)
        bars = with_columns(bars, volume=volume * bars.columns["volume"])
        answer = client.post(f"{self.url}/v1/signals", json=with_sentiment(symbol, bars, sentiment))
        document: dict[str, Any] = answer.json() | {"http_status": answer.status_code}
        return document

    def flood(self, n: int) -> list[int]:
        """Ask slow questions, all at once; return the statuses."""

        def one(_: int) -> int:
            with httpx2.Client(timeout=30) as client:
                status: int = self._asked(client, "IBM", 0, SLOW)["http_status"]
                return status

        with ThreadPoolExecutor(n) as pool:
            return list(pool.map(one, range(n)))

    def outcomes(self, label: Callable[[float], int]) -> None:
        """Ask, and report an outcome for each prediction."""
        made = [(one["decision_id"], one["prediction_probability"]) for one in self.ask(N)]
        known = [{"decision_id": identity, "label": label(probability)} for identity, probability in made]
        answer = httpx2.post(f"{self.url}/v1/outcomes:batch", json={"outcomes": known}, timeout=30)
        assert {one["report"] for one in answer.json()["results"]} == {"recorded"}

    def get(self, path: str) -> dict[str, Any]:
        document: dict[str, Any] = httpx2.get(f"{self.url}{path}", timeout=30).json()
        return document

    def events(self, alert: str) -> list[str]:
        """What was told of an alert, oldest first."""
        told = [one for one in self.get("/v1/alerts")["events"] if one["alert"] == alert]
        return [one["state"] for one in told[::-1]]

    def recover(self, alert: str) -> None:
        """Ask what is well until an alert that fires is resolved."""

        def is_resolved() -> bool:
            self.ask(N)
            return self.events(alert) == ["firing", "resolved"]

        wait_for(is_resolved, 60, lambda: f"{alert}: {self.get('/v1/alerts')}")

    def wait(self, alert: str, *states: str) -> None:
        wait_for(lambda: self.events(alert) == [*states], 30, lambda: f"{alert}: {self.get('/v1/alerts')}")


def watched(receiver: Receiver, log: Path, memory_limit: float) -> dict[str, Any]:
    """Return the A/B graph, IBM with production and AAPL with the candidate, whose rules look at few predictions."""
    document: dict[str, Any] = yaml.safe_load((ROOT / "configs/ab_test.yaml").read_text())
    signals, *models = document["applications"]
    args = signals["args"]
    args["journal"] = {"url": "replaced"}
    args["variants"]["production"] |= {"deadline_ms": 1500, "max_queued_rows": 4}
    args["router"]["assignment"] = {"candidate_share": 0, "pins": {"AAPL": "candidate"}}
    args["router"]["max_batch_requests"] = 4
    few = {"window": N}
    args["monitor"] = {
        "log": {"folder": str(log)},
        "alerts": {
            "rolling_accuracy": {"limit": 0.55, **few},
            "prediction_shift": {"limit": 0.1, **few},
            "inference_latency": {"limit": 300, **few},
            "error_rate": {"limit": 0.05, **few},
            "abstention_rate": {"limit": 0.05, **few},
            "memory": {"limit": memory_limit},
            "resolve_after_s": 1,
            "webhook": receiver.url,
        },
    }
    for model in models:
        model["import_path"] = "tests.e2e.slow_on_demand:build"
    return document


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, bars: dict[str, Bars]) -> Iterator[Graph]:
    receiver = Receiver(KEY)
    folder = tmp_path_factory.mktemp("monitoring")
    journal = f"sqlite:///{folder / 'journal.db'}"
    memory_limit = memory_in_use() + GRAPH_MEMORY
    document = watched(receiver, folder, memory_limit)
    # A replica reports before it has begun in earnest, as one does that takes long: see `deployments.event_loops`.
    variables = {"RAY_metrics_report_interval_ms": "500", "SIGNALGRAPH_WEBHOOK_SECRET": KEY}
    with serve_run(document, False, journal, **variables) as url:
        yield Graph(url, journal, receiver, bars, folder / "decisions-0.jsonl", memory_limit)
    receiver.close()


@pytest.fixture(scope="module")
def prom(graph: Graph, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    discovery = FOLDERS[graph.url] / "ray/prom_metrics_service_discovery.json"
    wait_for(discovery.exists, 30, lambda: f"no {discovery}")
    with prometheus(discovery, tmp_path_factory.mktemp("prometheus")) as server:
        yield server


def test_each_decision_is_a_line_of_the_log_under_the_id_of_its_request(graph: Graph) -> None:
    (made,) = graph.ask(1, request_id="my-request")
    graph.ask(1, symbol="NOBODY", request_id="my-mistake")

    def lines(request_id: str) -> list[dict[str, Any]]:
        written = graph.log.read_text().splitlines() if graph.log.exists() else []
        return [line for line in map(json.loads, written) if line["request_id"] == request_id]

    wait_for(lambda: bool(lines("my-request") and lines("my-mistake")), 30, lambda: str(graph.log))
    (line,) = lines("my-request")
    assert (line["decision_id"], line["prediction"]) == (made["decision_id"], made["prediction_probability"])
    assert list(line["features_summary"]) == ["open", "high", "low", "close", "volume"]
    assert lines("my-mistake")[0]["error"] == "unknown_symbol"


def test_slow_answers_are_told(graph: Graph) -> None:
    graph.ask(2 * N)
    assert graph.events("inference_latency") == []
    graph.ask(N, sentiment=SLOW)
    graph.wait("inference_latency", "firing")
    graph.recover("inference_latency")


def test_requests_that_the_service_fails_are_told(graph: Graph) -> None:
    statuses = graph.flood(16)
    assert set(statuses) == {200, 503}
    graph.wait("error_rate", "firing")
    graph.recover("error_rate")


def test_decisions_without_a_model_are_told(graph: Graph) -> None:
    assert {one["reason"] for one in graph.ask(2, sentiment=HANGS)} == {"deadline"}
    graph.wait("abstention_rate", "firing")
    graph.recover("abstention_rate")


def test_shifted_bars_are_told_and_named(graph: Graph) -> None:
    graph.ask(2 * N)
    graph.wait("prediction_shift")
    graph.ask(N, volume=100)
    graph.wait("prediction_shift", "firing")
    graph.recover("prediction_shift")
    graph.ask(200, volume=100)
    graph.ask(1, symbol="AAPL")

    def named() -> bool:
        found = graph.get("/v1/alerts")["alerts"]
        return any(one["alert"] == "feature_drift" and re.search(r"\bvolume\b", one["message"]) for one in found)

    wait_for(named, 30, lambda: str(graph.get("/v1/alerts")["alerts"]))
    assert graph.events("feature_drift") == ["firing"]  # the first block of today's prices did, before


def test_wrong_predictions_are_told(graph: Graph) -> None:
    graph.outcomes(lambda probability: int(probability < 0.5))
    graph.wait("rolling_accuracy", "firing")
    graph.outcomes(lambda probability: int(probability >= 0.5))
    graph.wait("rolling_accuracy", "firing", "resolved")


def test_memory_that_runs_out_is_told(graph: Graph) -> None:
    graph.wait("memory")
    taken = []
    while memory_in_use() < graph.memory_limit + 0.02:
        taken.append(np.ones(psutil.virtual_memory().total // 100 // 8))
    graph.wait("memory", "firing")
    taken.clear()
    graph.wait("memory", "firing", "resolved")


def test_the_webhook_was_called_for_each_and_signed(graph: Graph) -> None:
    told = graph.get("/v1/alerts")["events"]
    wait_for(lambda: len(graph.receiver.events) == len(told), 30, lambda: str(graph.receiver.events))
    assert all(one["genuine"] for one in graph.receiver.events)
    for alert in ("inference_latency", "error_rate", "abstention_rate", "rolling_accuracy", "memory"):
        # A flood is slow, too: an alert may have come again, but each time once.
        heard = graph.receiver.heard(alert)
        assert heard == graph.events(alert) == ["firing", "resolved"] * (len(heard) // 2)
    assert {one["data"]["alert"] for one in graph.receiver.events if one["wants_retraining"]} == {
        "prediction_shift",
        "feature_drift",
        "rolling_accuracy",
    }


def test_prometheus_says_what_the_monitor_says(graph: Graph, prom: Prometheus) -> None:
    variants = graph.get("/v1/monitor")["variants"]
    actions = {(name, action): n for name, one in variants.items() for action, n in one["actions"].items()}
    reasons = {(name, reason): n for name, one in variants.items() for reason, n in one["abstentions"].items()}
    errors = {(code,): n for code, n in graph.get("/v1/monitor")["errors"].items()}

    def same() -> bool:
        return (
            prom.values("max by (variant, action) (ray_signalgraph_decisions)", "variant", "action") == actions
            and prom.values("max by (variant, reason) (ray_signalgraph_abstentions)", "variant", "reason") == reasons
            and prom.values("max by (code) (ray_signalgraph_errors)", "code") == errors
        )

    wait_for(same, 60, lambda: f"{prom.query('ray_signalgraph_decisions')} is not {actions}, {reasons}, {errors}")
    wait_for(lambda: "SignalGraphAlert" in prom.firing(), 60, lambda: f"only {prom.firing()} fire")


def test_every_panel_has_data(graph: Graph, prom: Prometheus) -> None:
    files = sorted((ROOT / "configs/grafana").glob("*.json"))
    panels = [panel for file in files for panel in json.loads(file.read_text())["panels"]]
    targets = [target for panel in panels for target in panel["targets"]]
    assert len(targets) > 25

    def is_drawn(target: dict[str, str]) -> bool:
        """Whether there are series, and they have the labels that their legend names."""
        series = prom.query(target["expr"].replace("$__rate_interval", "2m"))
        labels = set(re.findall(r"{{(\w+)}}", target.get("legendFormat", "")))
        return bool(series) and all(labels <= one["metric"].keys() for one in series)

    def without_data() -> list[str]:
        graph.ask(1)
        graph.ask(1, symbol="AAPL")
        return [target["expr"] for target in targets if not is_drawn(target)]

    wait_for(lambda: not without_data(), 90, lambda: "\n".join(without_data()))


def test_the_alert_of_a_full_node_names_it(graph: Graph, prom: Prometheus) -> None:
    groups = yaml.safe_load((ROOT / "configs/prometheus/alerts.yaml").read_text())["groups"]
    rules = {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}
    (series,) = prom.query(rules["SignalGraphMemory"].partition(" > ")[0])
    assert list(series["metric"]) == ["ip"]
    assert list(graph.get("/v1/monitor")["memory"]) == [series["metric"]["ip"]]


def test_the_monitor_dies_and_nobody_notices(graph: Graph) -> None:
    """Nobody is refused, and it counts afterwards what the journal counts."""
    statuses: list[int] = []
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            statuses.extend(one["http_status"] for one in graph.ask(10))

    threads = [threading.Thread(target=client) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(size("kills of the monitor")):
            kill_monitor(RUNS[graph.url])
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}

    def counted() -> dict[str, int]:
        return {name: one["requests"] for name, one in graph.get("/v1/monitor").get("variants", {}).items()}

    wait_for(
        lambda: counted() == kept(graph.journal),
        30,
        lambda: f"the monitor counts {counted()}, the journal {kept(graph.journal)}",
    )
    assert graph.get("/v1/monitor")["dropped_observations"] == 0
    assert graph.events("rolling_accuracy") == ["firing", "resolved"]
    assert graph.events("feature_drift") == ["firing"]


def kill_monitor(run_id: str) -> None:
    """SIGKILL the monitor, and wait until another has taken its place."""
    wait_for(lambda: bool(titled(run_id, "MonitorActor")), 60, lambda: "no monitor")
    (monitor,) = titled(run_id, "MonitorActor")
    monitor.kill()
    monitor.wait(30)
    wait_for(lambda: bool(titled(run_id, "MonitorActor")), 60, lambda: "no new monitor")


def kept(journal: str) -> dict[str, int]:
    engine = create_engine(journal)
    query = select(decisions.c.variant, func.count()).group_by(decisions.c.variant)
    with engine.connect() as connection:
        found = {str(variant): int(n) for variant, n in connection.execute(query)}
    engine.dispose()
    return found
