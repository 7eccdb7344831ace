"""`signalgraph up` leaves nothing behind, however it ends, and says why when it cannot start."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from deployments import ports, processes, runs
from deployments.runs import Run
from tests.waiting import free_port, wait_for

ROOT = Path(__file__).parents[2]
CONFIG = "configs/fused.yaml"
SIGNALGRAPH = [sys.executable, "-m", "deployments.cli"]
IN_BACKGROUND = ["sh", "-c", 'trap "" INT; exec "$@"', "sh"]
"""What a non-interactive shell does to a job started with `&`: it ignores SIGINT."""

BROKEN_APP = """
from ray import serve

@serve.deployment
class Model:
    def __init__(self):
        raise ValueError("golden case 3 differs in rsi_14")

app = Model.bind()
"""
BROKEN_CONFIG = """
http_options: {host: 127.0.0.1}
applications: [{name: model, route_prefix: /, import_path: "broken_app:app"}]
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    return {
        **os.environ,
        "HOME": str(tmp_path),
        "SIGNALGRAPH_STATE_DIR": str(tmp_path / "state"),
        "PYTHONPATH": path,
    }


@dataclass
class Graph:
    """A running `signalgraph up` and what it says of itself."""

    up: subprocess.Popen[bytes]
    run: Run
    said: Path

    def policies(self) -> set[int]:
        """How the processes of the graph get a core; some of them end meanwhile."""
        found = set()
        for process in processes.of(self.run.run_id):
            with suppress(ProcessLookupError):
                found.add(os.sched_getscheduler(process.pid))
        return found

    def assert_nothing_is_left(self) -> None:
        assert processes.of(self.run.run_id) == []
        assert {port: ports.holder(port) for port in self.run.ports.fixed if ports.holder(port)} == {}
        assert not self.run.run_dir.exists()


def command(environment: Mapping[str, str], *arguments: str, timeout: float = 90) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SIGNALGRAPH, *arguments],
        cwd=ROOT,
        env=dict(environment),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@pytest.fixture
def graph(environment: Mapping[str, str], tmp_path: Path) -> Iterator[Graph]:
    """One that answers below a path of its own, as `up` must find out."""
    port, said, config = free_port(), tmp_path / "said", tmp_path / Path(CONFIG).name
    config.write_text((ROOT / CONFIG).read_text().replace("route_prefix: /\n", "route_prefix: /desk-a\n"))
    with said.open("wb") as file:
        up = subprocess.Popen(
            [*IN_BACKGROUND, *SIGNALGRAPH, "up", str(config), "--port", str(port)],
            cwd=ROOT,
            env=dict(environment),
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    with up:
        try:
            wait_for(lambda: "ready:" in said.read_text() or up.poll() is not None, 240, said.read_text)
            assert up.poll() is None, said.read_text()
            (run,) = runs.known(tmp_path / "state")
            yield Graph(up, run, said)
        finally:
            command(environment, "down")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_graph_and_leaves_nothing(graph: Graph, number: signal.Signals) -> None:
    assert processes.of(graph.run.run_id)
    graph.up.send_signal(number)
    assert graph.up.wait(90) == 0, graph.said.read_text()
    assert "nothing is left" in graph.said.read_text()
    graph.assert_nothing_is_left()


def test_a_second_ctrl_c_ends_it_at_once_and_leaves_nothing(graph: Graph) -> None:
    graph.up.send_signal(signal.SIGINT)
    wait_for(lambda: "stopping" in graph.said.read_text(), 10, graph.said.read_text)
    graph.up.send_signal(signal.SIGINT)
    assert graph.up.wait(30) == 0, graph.said.read_text()
    graph.assert_nothing_is_left()


def test_all_take_turns_a_second_up_is_refused_and_down_leaves_nothing(
    graph: Graph, environment: Mapping[str, str]
) -> None:
    port = str(graph.run.ports.http)
    status = command(environment, "status")
    assert status.returncode == 0, status.stdout
    assert f"http://127.0.0.1:{port}/desk-a/dashboard" in status.stdout
    assert httpx2.get(f"{graph.run.url}/dashboard/", timeout=30).status_code == 200
    assert graph.policies() == {os.SCHED_BATCH}

    second = command(environment, "up", CONFIG, "--port", port)
    assert second.returncode == 1
    assert f"pid {graph.up.pid}" in second.stderr
    assert Path(CONFIG).name in second.stderr
    assert f"signalgraph down --port {port}" in second.stderr

    assert command(environment, "down", "--port", port).returncode == 0
    assert graph.up.wait(10) == 0
    graph.assert_nothing_is_left()
    assert command(environment, "status").returncode == 3


def test_down_ends_the_orphans_of_a_killed_up(graph: Graph, environment: Mapping[str, str]) -> None:
    graph.up.kill()
    graph.up.wait(10)
    assert "was killed" in command(environment, "status").stdout
    assert command(environment, "down").returncode == 0
    graph.assert_nothing_is_left()


def test_a_port_held_by_a_stranger_is_refused_naming_its_pid(environment: Mapping[str, str]) -> None:
    port = str(free_port())
    serve = [sys.executable, "-m", "http.server", port, "--bind", "127.0.0.1"]
    with subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as stranger:
        try:
            wait_for(lambda: not ports.is_free(int(port)), 10, lambda: "http.server does not listen")
            refused = command(environment, "up", CONFIG, "--port", port)
        finally:
            stranger.terminate()
    assert refused.returncode == 1
    assert f"port {port} is held by pid {stranger.pid}" in refused.stderr
    assert "http.server" in refused.stderr


def test_a_graph_that_cannot_start_says_why_and_leaves_nothing(environment: Mapping[str, str], tmp_path: Path) -> None:
    (tmp_path / "broken_app.py").write_text(BROKEN_APP)
    config = tmp_path / "broken.yaml"
    config.write_text(BROKEN_CONFIG)
    port = free_port()
    refused = command(environment, "up", str(config), "--port", str(port), timeout=180)
    assert refused.returncode == 1
    assert "ValueError: golden case 3 differs in rsi_14" in refused.stderr
    assert "nothing is left" in refused.stdout
    assert "in __init__" in (tmp_path / "state" / f"{port}.log").read_text()
    assert ports.is_free(port)


def test_a_key_that_serve_would_ignore_is_refused(environment: Mapping[str, str], tmp_path: Path) -> None:
    config = tmp_path / "typo.yaml"
    config.write_text("applications: []\nhttp_option: {port: 1}\n")
    refused = command(environment, "up", str(config))
    assert refused.returncode == 1
    assert "http_option: unknown; did you mean http_options?" in refused.stderr
