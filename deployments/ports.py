"""The ports of one graph, and who holds one."""

import socket
from collections.abc import Collection
from contextlib import closing
from dataclasses import dataclass

import psutil

_SLOTS = 64
_REPLICAS_PER_SLOT = 100


@dataclass(frozen=True, slots=True)
class Ports:
    """Every port of one graph. The `slot` keeps graphs on one machine apart: slot 0 is Ray's defaults."""

    http: int
    slot: int = 0

    @property
    def stats(self) -> int:
        """HAProxy's statistics page; on all interfaces."""
        return 8404 + self.slot

    @property
    def metrics(self) -> int:
        """HAProxy's own Prometheus endpoint; on all interfaces."""
        return 9101 + self.slot

    @property
    def fallback_http(self) -> int:
        """The Python proxy that HAProxy falls back to."""
        return 8500 + self.slot

    @property
    def fallback_grpc(self) -> int:
        """As `fallback_http`, for gRPC."""
        return 9500 + self.slot

    @property
    def replicas_http(self) -> range:
        """One of these for every replica that HAProxy talks to."""
        start = 30_000 + self.slot * _REPLICAS_PER_SLOT
        return range(start, start + _REPLICAS_PER_SLOT)

    @property
    def replicas_grpc(self) -> range:
        """As `replicas_http`, for gRPC."""
        start = 40_000 + self.slot * _REPLICAS_PER_SLOT
        return range(start, start + _REPLICAS_PER_SLOT)

    @property
    def fixed(self) -> tuple[int, ...]:
        """The ports that nobody else may hold; a replica skips a taken port of its range by itself."""
        return (self.http, self.stats, self.metrics, self.fallback_http, self.fallback_grpc)


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that listens on a port, as far as we may see it."""

    pid: int | None = None
    command: str = ""
    user: str = ""

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user, which only root can name"
        return f"pid {self.pid} ({self.command}; user {self.user})"


def choose(http: int, taken: Collection[int] = ()) -> Ports:
    """Return the ports of a new graph: Ray's defaults when free, else the first slot that is.

    Args:
        http: the port of the API, which the caller has checked.
        taken: slots of graphs that are starting and may not listen yet.
    """
    for slot in range(_SLOTS):
        ports = Ports(http, slot)
        own = ports.fixed[1:]
        if slot not in taken and http not in own and all(map(is_free, own)):
            return ports
    raise OSError(f"no free ports for HAProxy: all {_SLOTS} slots from 8404, 8500, 9101 and 9500 are taken")


def is_free(port: int) -> bool:
    """Tell whether nobody listens on this port, on loopback or on any address."""
    return all(_can_bind(host, port) for host in ("127.0.0.1", "0.0.0.0"))  # noqa: S104 (bound, never listening)


def _can_bind(host: str, port: int) -> bool:
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def holder(port: int) -> Holder | None:
    """Return who listens on this port; None when nobody does."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:  # macOS shows other processes' sockets to root only
        return None if is_free(port) else Holder()
    listening = [c for c in connections if c.status == psutil.CONN_LISTEN and c.laddr and c.laddr.port == port]
    if not listening:
        return None
    return _describe(next((c.pid for c in listening if c.pid is not None), None))


def _describe(pid: int | None) -> Holder:
    if pid is None:
        return Holder()
    try:
        process = psutil.Process(pid)
        return Holder(pid, " ".join(process.cmdline()).strip() or process.name(), process.username())
    except psutil.Error:
        return Holder(pid, "command not visible", "unknown")
