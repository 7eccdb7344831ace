"""How many replicas there are, as Ray Serve says."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from deployments import runs, serve_status
from deployments.serve_status import ApplicationStatus
from serve_app.errors import ServeAppError

EVERY_S = 1.0


class UnknownGraph(ServeAppError):
    """Nobody knows where Ray says how many replicas a graph has."""

    code = "unknown_graph"


@dataclass(frozen=True, slots=True)
class Replicas:
    """Of each deployment, by `application/deployment`."""

    t: float
    """Unix time."""
    running: dict[str, int]
    target: dict[str, int]
    """How many Ray Serve wants; those that do not run yet are starting."""


def dashboard_of(url: str) -> str:
    """Return the address of Ray's dashboard for a graph that `signalgraph up` runs here. Raises UnknownGraph."""
    for run in runs.known(runs.state_dir(os.environ, Path.home())):
        if run.url == url and run.dashboard:
            return run.dashboard
    raise UnknownGraph(
        f"no `signalgraph up` of this user serves {url}, so pass the address of its Ray dashboard with --dashboard"
    )


def watch(dashboard: str, over: Callable[[float], bool]) -> Iterator[Replicas]:
    """Yield how many replicas there are every second until `over`, which waits that long, says so; once more then."""
    token, last = serve_status.token(os.environ, Path.home()), False
    while True:
        # None when the dashboard was too busy to answer: the next second tells.
        if applications := serve_status.applications(dashboard, token):
            yield count(time.time(), applications)
        if last:
            return
        last = over(EVERY_S)


def count(t: float, applications: Sequence[ApplicationStatus]) -> Replicas:
    """Return the replicas of all deployments."""
    found = {f"{application.name}/{one.name}": one for application in applications for one in application.deployments}
    running = {name: one.running for name, one in found.items()}
    return Replicas(t, running, {name: one.target for name, one in found.items()})
