"""Real `serve run`, real HTTP, each graph isolated from whatever else runs on the machine."""

import copy
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from deployments import ports, processes, profile
from tests.replicas import FOLDERS, RUNS
from tests.waiting import free_port, wait_for

ROOT = Path(__file__).parents[2]


@contextmanager
def serve_run(
    config: str | Mapping[str, Any], haproxy: bool = False, journal: str | None = None, **variables: str
) -> Iterator[str]:
    """Run a configuration with `serve run`, on a free port; give its address once it is ready.

    Behind Ray's plain proxy, or in the high-throughput profile; `journal` is its URL in place of a database of its own;
    `variables` are added to the environment.
    """
    document = yaml.safe_load((ROOT / config).read_text()) if isinstance(config, str) else copy.deepcopy(dict(config))
    port, run_id = free_port(), secrets.token_hex(8)
    document["http_options"]["port"] = port
    folder = Path(tempfile.mkdtemp(prefix="sg-", dir="/tmp"))
    for application in document["applications"]:
        if "journal" in application["args"]:
            # What one run decides is its own.
            application["args"]["journal"] |= {
                "url": journal or f"sqlite:///{folder / 'journal.db'}",
                "spool": str(folder / "spool"),
            }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    (folder / "h").mkdir()
    base = {**os.environ, **variables, "PYTHONPATH": str(ROOT)}
    environment = profile.environment(base, ports.choose(port), folder, run_id, haproxy=haproxy)
    log = folder / "log"
    with log.open("wb") as file:
        serve = subprocess.Popen(
            [str(Path(sys.executable).parent / "serve"), "run", str(folder / "config.yaml")],
            cwd=ROOT,
            env=environment,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        url = f"http://127.0.0.1:{port}"

        def failed() -> bool:
            # Ray Serve tells why it could not build an application, and runs on.
            return serve.poll() is not None or "serve_app.errors." in log.read_text()

        wait_for(lambda: is_ready(url) or failed(), 180, log.read_text)
        assert not failed(), log.read_text()
        RUNS[url], FOLDERS[url] = run_id, folder
        yield url
    finally:
        # By force, which is seven seconds quicker; how a graph ends in good order is for test_lifecycle.
        processes.end(run_id, grace_s=0)
        serve.wait(10)
        shutil.rmtree(folder, ignore_errors=True)


def is_ready(url: str) -> bool:
    try:
        return httpx2.get(url + "/v2/health/ready", timeout=5).status_code == 200
    except httpx2.HTTPError:
        return False


@pytest.fixture(scope="module")
def ab_test() -> Iterator[str]:
    """The address of the A/B graph. One that waits for the next file takes more of the machine than another start."""
    with serve_run("configs/ab_test.yaml") as url:
        yield url
