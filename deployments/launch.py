"""One `serve run`: its config, its process, its way to ready or to a reason why not."""

import ctypes
import dataclasses
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from deployments import profile, serve_status
from deployments.runs import Run
from serve_app.errors import ConfigError, ServeAppError

GRAPH = "deployments.graph:build_app"
"""What a configuration imports for a graph."""
_POLL_S = 0.3
_PR_SET_PDEATHSIG = 1
_DASHBOARD = re.compile(r"View the dashboard at (http://\S+)")
_NOISE = re.compile(r"^\s*$|\(raylet\)|graceful_shutdown failed|authentication_token_setup|• ")


class CannotStart(ServeAppError):
    """The graph does not run; the message says why, and what to do."""

    code = "cannot_start"


def read(config: Path) -> dict[str, Any]:
    """Return the content of a configuration file. Raises ConfigError that names every fault of it."""
    # In a process of its own: Ray would keep 180 MB and some threads in this one, which only waits.
    check = [sys.executable, "-m", "deployments.config_check", str(config)]
    found = subprocess.run(check, capture_output=True, text=True, check=False)  # noqa: S603 (our own module)
    if found.returncode:
        raise ConfigError(f"refused:\n{found.stdout or found.stderr}".rstrip())
    document: dict[str, Any] = yaml.safe_load(config.read_text())
    return document


def prefix_of(document: dict[str, Any]) -> str:
    """Return below which path the first graph of a configuration answers; nothing when it is the root."""
    routes = (one.get("route_prefix") for one in document["applications"] if one["import_path"] == GRAPH)
    return (next(routes, None) or "/").rstrip("/")


def start(run: Run, document: dict[str, Any]) -> subprocess.Popen[bytes]:
    """Start `serve run` in a session of its own, so that Ctrl-C reaches it only through us."""
    (run.run_dir / "h").mkdir()
    command = [sys.executable, "-um", "ray.serve.scripts", "run", str(_config(run, document))]
    environment = profile.environment(os.environ, run.ports, run.run_dir, run.run_id, run.fast)
    with run.log.open("ab") as log:
        return subprocess.Popen(  # noqa: S603 (our own command)
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_before_it_runs if sys.platform == "linux" else None,  # noqa: PLW1509
        )


def wait_until_ready(
    run: Run, child: subprocess.Popen[bytes], folder: Path, say: Callable[[str], None], timeout_s: float
) -> None:
    """Return once every application runs and the graph calls itself ready.

    Serve gives up on a deployment once `max_constructor_retry_count` of its constructors have failed: at the first, see
    `deployments.graph`, unless the configuration says more. Each error is said when it comes.
    """
    deadline = time.monotonic() + timeout_s
    told: set[str] = set()
    reason: str | None = "Ray has not started yet"
    while time.monotonic() < deadline:
        if _ended(child):
            raise CannotStart(f"serve run ended with code {child.returncode}:\n{tail(run.log)}")
        if run.dashboard is None:
            run = _with_dashboard(run, folder)
            continue
        reason = _obstacle(run, told, say)
        if reason is None:
            return
    raise CannotStart(f"not ready after {timeout_s:g} s: {reason}\n{tail(run.log)}")


def interrupt(child: subprocess.Popen[bytes] | None, patience_s: float) -> None:
    """Send SIGINT and wait: `serve run` drains and shuts down on SIGINT only."""
    if child is None or child.poll() is not None:
        return
    child.send_signal(signal.SIGINT)
    try:
        child.wait(patience_s)
    except subprocess.TimeoutExpired:
        return


def tail(log: Path, count: int = 30) -> str:
    """Return the last lines of a log that mean something."""
    lines = serve_status.uncoloured(log.read_text(errors="replace")).splitlines()
    return "\n".join([line for line in lines if not _NOISE.search(line)][-count:])


def _config(run: Run, document: dict[str, Any]) -> Path:
    options = document.get("http_options") or {}
    if run.ports.http == options.get("port", 8000):
        return Path(run.config)
    derived = run.run_dir / "config.yaml"
    content = {**document, "http_options": {**options, "port": run.ports.http}}
    derived.write_text(yaml.safe_dump(content, sort_keys=False))
    return derived


def _before_it_runs() -> None:
    """Have it interrupted when its parent dies, and let its processes take turns."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)
    profile.take_turns()


def _ended(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(_POLL_S)
    except subprocess.TimeoutExpired:
        return False
    return True


def _with_dashboard(run: Run, folder: Path) -> Run:
    found = _DASHBOARD.search(serve_status.uncoloured(run.log.read_text(errors="replace")))
    if found is None:
        return run
    run = dataclasses.replace(run, dashboard=found[1])
    run.save(folder)
    return run


def _obstacle(run: Run, told: set[str], say: Callable[[str], None]) -> str | None:
    token = serve_status.token(os.environ, Path.home())
    applications = serve_status.applications(run.dashboard or "", token)
    for application in applications:
        trouble = application.trouble
        if trouble and trouble not in told:
            told.add(trouble)
            _append(run.log, application.complaint)
            if not application.failed:
                say(f"{trouble}\n(Ray Serve tries again)")
        if application.failed:
            raise CannotStart(trouble or f"{application.name}: Ray Serve reports DEPLOY_FAILED and no reason")
    waiting = [application.name for application in applications if not application.running]
    if waiting or not applications:
        return f"waiting for applications: {', '.join(waiting) or 'none known yet'}"
    return serve_status.unready(run.url)


def _append(log: Path, text: str) -> None:
    # The high-throughput profile keeps Serve's own lines out of this log; whoever debugs wants the frames.
    with log.open("a") as file:
        file.write(f"{serve_status.uncoloured(text)}\n")
