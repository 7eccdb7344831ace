"""A graph that is deployed again with other rules, another webhook or another journal is watched by these."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import ray
from ray import serve

from deployments import graph as graph_module
from deployments.graph import build_app
from deployments.keys import WEBHOOK_SECRET
from deployments.monitor import ACTOR_NAME, NAMESPACE, MonitorArgs, monitor_actor, packed
from serve_app.config import AppConfig, MonitorConfig, Topology
from serve_app.types import Bars
from tests.factories import every_form, window
from tests.receiver import Receiver
from tests.serve.conftest import app_config, wait_until_ready
from tests.unit.monitor.answers import NOW, told
from tests.waiting import wait_for

NAME = "watched"
SECRETS = ("secret of the first", "secret of the second")
NEVER, ALWAYS = {"limit": 1.0}, {"limit": 0.0}
"""Shares of the memory that is in use."""


class Watched:
    """A graph of two routers, and who is told of its alerts."""

    def __init__(self, url: str, folder: Path, bars: Bars, receivers: tuple[Receiver, Receiver]) -> None:
        self.url = url
        self.receivers = receivers
        self._folder = folder
        self._path, self._body = every_form("IBM", window(bars))["columns"]

    def deploy(self, journal: str, to: int, window: int, memory: dict[str, float] | None) -> None:
        """Run the graph, or run it again."""
        document: dict[str, Any] = app_config(Topology.FUSED, share=0.0).model_dump(mode="json")
        document["journal"] = {
            "url": f"sqlite:///{self._folder / journal}.db",
            "spool": str(self._folder / f"spool-{journal}"),
        }
        alerts = {"memory": memory, "resolve_after_s": 0, "webhook": self.receivers[to].url}
        document["monitor"] = {"window": window, "alerts": alerts}
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(WEBHOOK_SECRET, SECRETS[to])
            patch.setitem(graph_module._ROUTER, "num_replicas", 2)
            serve.run(build_app(AppConfig.model_validate(document)), name=NAME, route_prefix=f"/{NAME}")
        wait_until_ready(f"{self.url}/v2/health/ready")

    def ask(self, n: int) -> None:
        for _ in range(n):
            answer = httpx2.post(self.url + self._path, json=self._body, timeout=30)
            assert answer.status_code == 200, answer.text

    def wait(self, requests: int, window: int, told: list[str]) -> None:
        """Wait until the monitor counts so many, over such a window, and has told this of the memory."""

        def found() -> tuple[int, int | None, list[str]]:
            monitor = httpx2.get(f"{self.url}/v1/monitor", timeout=30).json()
            events = httpx2.get(f"{self.url}/v1/alerts", timeout=30).json().get("events", ())
            counted = sum(one["requests"] for one in monitor.get("variants", {}).values())
            states = [one["state"] for one in events if one["alert"] == "memory"]
            return counted, monitor.get("latency_window"), states[::-1]

        wait_for(lambda: found() == (requests, window, told), 60, lambda: f"found {found()}")

    def heard(self, states: list[str], by: int) -> None:
        """Wait until one receiver has been told this, and nothing else."""
        receiver = self.receivers[by]
        wait_for(lambda: receiver.heard("memory") == states, 60, lambda: str(receiver.events))
        assert all(one["genuine"] for one in receiver.events)


@pytest.fixture(scope="module")
def watched(http_port: int, bars: dict[str, Bars], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    first, second = map(Receiver, SECRETS)
    folder = tmp_path_factory.mktemp(NAME)
    yield Watched(f"http://127.0.0.1:{http_port}/{NAME}", folder, bars["IBM"], (first, second))
    serve.delete(NAME)
    first.close()
    second.close()


def test_the_monitor_follows_what_is_deployed(watched: Watched) -> None:
    watched.deploy("journal", to=0, window=3_000, memory=NEVER)
    watched.ask(3)
    watched.wait(3, 3_000, [])

    watched.deploy("journal", to=1, window=4_000, memory=ALWAYS)
    watched.wait(3, 4_000, ["firing"])
    watched.heard(["firing"], by=1)

    ray.kill(ray.get_actor(f"{ACTOR_NAME}-{NAME}", NAMESPACE), no_restart=False)
    watched.ask(1)
    watched.wait(4, 4_000, ["firing"])

    watched.deploy("journal", to=1, window=4_000, memory=None)
    watched.wait(4, 4_000, ["firing", "resolved"])
    watched.heard(["firing", "resolved"], by=1)

    watched.deploy("other", to=0, window=4_000, memory=ALWAYS)
    watched.ask(2)
    watched.wait(2, 4_000, ["firing"])
    watched.heard(["firing"], by=0)


def test_a_monitor_that_nobody_tells_any_more_ends_for_good(http_port: int) -> None:
    assert http_port  # Ray runs
    actor = monitor_actor("forsaken", forsaken_s=0.5)
    assert ray.get(actor.push.remote(packed(told([])), MonitorArgs(NOW, MonitorConfig()))).is_new

    def names() -> list[str]:
        return [one["name"] for one in ray.util.list_named_actors(all_namespaces=True)]

    wait_for(lambda: f"{ACTOR_NAME}-forsaken" not in names(), 60, lambda: str(names()))
    again = monitor_actor("forsaken")
    assert ray.get(again.push.remote(packed(told([])), MonitorArgs(NOW, MonitorConfig()))).is_new
    ray.kill(again)
