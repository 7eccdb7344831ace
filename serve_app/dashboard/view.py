"""What the dashboard shows at one moment. A part that cannot be had is left out, and why is said."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from serve_app.config import Topology
from serve_app.control import Control
from serve_app.errors import ServeAppError
from serve_app.evidence import Experiments

T = TypeVar("T")
STAGES_S, RELEASES_S, EVIDENCE_S = 5.0, 2.0, 60.0
"""How old each part may be: the more it costs, the older."""
SPARES = 100
"""Times as long as it took, evidence is not asked for again: it grows with the journal, and costs 1 % of a core."""
CHANGES = 8
"""Of the releases, that are shown: the latest."""
POINTS = 300
"""Of the comparison of two models, that are drawn: the latest."""

log = logging.getLogger(__name__)

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Sources:
    """Who knows what a graph does."""

    topology: Topology
    monitor: Ask
    """The counts, drift and alerts of `/v1/monitor`, with the latest decisions: what `encode` takes, as all parts."""
    chart: Callable[[str], Awaitable[dict[str, Any]]]
    """The bars of a symbol, and what was decided at them."""
    stages: Ask
    """Replicas of each stage that is a deployment of its own."""
    readiness: Callable[[], Mapping[str, str | None]]
    """For each variant, why it may not serve yet, or None."""


class Aged(Generic[T]):
    """What is asked for in the background once it is old. Nobody waits for it: the old one is there meanwhile."""

    def __init__(self, what: str, ask: Callable[[], Awaitable[T]], age_s: float, spares: float = 0) -> None:
        """`age_s`: how old it may be, or `spares` times as long as it took, if that is longer."""
        self._what = what
        self._ask = ask
        self._age_s = age_s
        self._spares = spares
        self._asked_at = -age_s
        self._took_s = 0.0
        self._task: asyncio.Task[None] | None = None
        self.value: T | None = None
        self.trouble: str | None = None
        """Why it could not be had the last time."""

    def refresh(self, now_s: float) -> None:
        """Ask, if it is old and is not being asked for."""
        is_asking = self._task is not None and not self._task.done()
        if not is_asking and now_s - self._asked_at >= max(self._age_s, self._spares * self._took_s):
            self._asked_at = now_s
            self._task = asyncio.create_task(self._refreshed())

    async def _refreshed(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        try:
            self.value = await self._ask()
            self.trouble = None
        except ServeAppError as error:
            self.trouble = f"{self._what}: {error}"
        except Exception as error:  # the page shows the rest; what a library says of itself is for the log
            log.exception("the dashboard lacks %s", self._what)
            self.trouble = f"{self._what}: {type(error).__name__}"
        self._took_s = loop.time() - began


class View:
    """Gathers it."""

    def __init__(
        self,
        sources: Sources,
        control: Control | None,
        experiments: Experiments | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`control` and `experiments` are None where no journal keeps releases and decisions."""
        self._sources = sources
        self._control = control
        self._experiments = experiments
        self._clock = clock
        self._parts: dict[str, Aged[Any]] = {
            "stages": Aged("replicas", sources.stages, STAGES_S),
            "releases": Aged("releases", self._releases, RELEASES_S),
            "experiment": Aged("evidence", self._experiment, EVIDENCE_S, SPARES),
        }

    async def now(self) -> dict[str, Any]:
        """Return all that is known; None stands for what is not known yet, or not kept."""
        for part in self._parts.values():
            part.refresh(self._clock())
        monitor, trouble = None, [part.trouble for part in self._parts.values() if part.trouble]
        try:
            monitor = await self._sources.monitor()
        except ServeAppError as error:
            trouble.append(str(error))
        return {
            "at": datetime.now(UTC).isoformat(),
            "topology": self._sources.topology,
            "readiness": {str(name): reason for name, reason in self._sources.readiness().items()},
            "monitor": monitor,
            **{name: part.value for name, part in self._parts.items()},
            "trouble": trouble,
        }

    async def _releases(self) -> dict[str, Any] | None:
        if self._control is None:
            return None
        history = await self._control.history()
        return {"in_force": history[-1] if history else None, "history": history[-CHANGES:][::-1]}

    async def _experiment(self) -> dict[str, Any] | None:
        if self._control is None or self._experiments is None:
            return None
        history = await self._control.history()
        if not history:
            return None
        release = history[-1]["release"]
        return await asyncio.to_thread(_evidence, self._experiments, release["production"], release["candidate"])


def _evidence(experiments: Experiments, production: str, candidate: str | None) -> dict[str, Any] | None:
    """Return what is known of two bundles, as far as it is drawn; None when they are no experiment."""
    pair = (production, candidate)
    names = [one["name"] for one in experiments.list() if (one["production"], one["candidate"]) == pair]
    if not names:
        return None
    report = experiments.report(names[-1])
    paired = report["paired"]
    return {
        "name": names[-1],
        "verdict": report["verdict"],
        "doubts": report["doubts"],
        "counts": paired["counts"],
        "scores": paired["variants"],
        "brier_difference": {name: values[-POINTS:] for name, values in paired["brier_difference"].items()},
    }
