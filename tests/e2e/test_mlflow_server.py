"""A tracking server on another address: what is published through it is what comes back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from deployments.cli import main
from serve_app.model import load_bundle
from tests.e2e.conftest import ROOT
from tests.waiting import free_port, wait_for


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A real `mlflow server` with a store and artefacts of its own."""
    port = free_port()
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "art"),
    ]
    said = tmp_path / "server.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", *command, *stores],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: _answers(f"{url}/health") or process.poll() is not None, 90, said.read_text)
        assert process.poll() is None, said.read_text()
        yield url
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx2.get(url).status_code == 200
    except httpx2.TransportError:
        return False


def test_a_bundle_goes_through_a_tracking_server_and_comes_back_as_it_was(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    published = CliRunner().invoke(main, ["bundle", "publish", str(ROOT / "models/v1.1")])
    assert published.exit_code == 0, published.output
    uri = "models:/TradingSignalPredictor@production"
    fetched = CliRunner().invoke(main, ["bundle", "import", "--from", uri, "--models-dir", str(tmp_path / "models")])
    assert fetched.exit_code == 0, fetched.output
    assert load_bundle(tmp_path / "models/v1.1").digest == load_bundle(ROOT / "models/v1.1").digest
