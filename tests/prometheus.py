"""A Prometheus of our own, from Debian's package, on a free loopback port, with the configuration that ships."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import yaml

from tests.programs import needed
from tests.waiting import free_port, wait_for

CONFIGS = Path(__file__).parents[1] / "configs/prometheus"


class Prometheus:
    """A server to ask."""

    def __init__(self, url: str) -> None:
        self.url = url

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series of an expression now."""
        response = httpx2.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=20)
        assert response.status_code == 200, f"{expression}: {response.text}"
        found: list[dict[str, Any]] = response.json()["data"]["result"]
        return found

    def values(self, expression: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return the values of an expression by some labels."""
        found = self.query(expression)
        return {tuple(one["metric"][label] for label in labels): float(one["value"][1]) for one in found}

    def firing(self) -> set[str]:
        """Return the names of the alerts that fire."""
        alerts = httpx2.get(f"{self.url}/api/v1/alerts", timeout=20).json()["data"]["alerts"]
        return {alert["labels"]["alertname"] for alert in alerts if alert["state"] == "firing"}


@contextmanager
def prometheus(discovery: Path, folder: Path) -> Iterator[Prometheus]:
    """Scrape what Ray lists in a file, every second; skip where Prometheus is not installed."""
    program = needed("prometheus")
    config = yaml.safe_load((CONFIGS / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(CONFIGS / "alerts.yaml")]
    config["scrape_configs"][0]["file_sd_configs"] = [{"files": [str(discovery)], "refresh_interval": "2s"}]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    url = f"http://127.0.0.1:{free_port()}"
    options = [f"--config.file={folder / 'prometheus.yaml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with (folder / "prometheus.log").open("wb") as log:
        server = subprocess.Popen(
            [program, *options, f"--web.listen-address={url.removeprefix('http://')}"],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: _is_ready(url), 30, (folder / "prometheus.log").read_text)
        yield Prometheus(url)
    finally:
        server.terminate()
        server.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/-/ready", timeout=2).status_code == 200
    except httpx2.HTTPError:
        return False
