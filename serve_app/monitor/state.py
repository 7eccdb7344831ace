"""Counts and rolling windows, from what routers tell. The counts are those of the journal, decision by decision."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from statistics import fmean
from typing import Any

import numpy as np

from serve_app.errors import SERVER_CODES
from serve_app.monitor.drift import DriftWatch, Seen
from serve_app.monitor.observation import Heard, Learnt, Observation, Told
from serve_app.monitor.tape import Tape
from serve_app.types import Kind, VariantName

SILENT_S = 30.0
"""A router tells every second; after this it is gone, and its memory with it."""
_WAITING = 20
"""Tellings that wait for a bundle's reference."""
PERCENTILES = (50, 95, 99)
REMEMBERED = 200_000
"""Ids of the latest decisions, by which one that is told twice is counted once."""


def _percentiles(values: Iterable[float]) -> dict[str, float] | None:
    array = np.fromiter(values, dtype=float)
    if not len(array):
        return None
    return {f"p{q}": round(float(np.percentile(array, q)), 3) for q in PERCENTILES}


@dataclass(frozen=True, slots=True)
class _Router:
    """What one router told last. It stays when it is gone: its errors happened."""

    errors: Mapping[str, int]
    dropped: int
    memory: Mapping[str, float]
    heard_at: float


class VariantWindow:
    """The latest decisions of one variant, oldest first."""

    def __init__(self, window: int) -> None:
        self.latencies_ms: deque[float] = deque(maxlen=window)
        """Of decisions that rest on a model."""
        self.probabilities: deque[float] = deque(maxlen=window)
        self.abstained: deque[bool] = deque(maxlen=window)
        self.ages_s: deque[float] = deque(maxlen=window)
        """From the last bar to the decision, where the client said when that was."""
        self._stages: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=window))
        self.version: str | None = None
        """Of the model whose decisions these are; None: it answers nobody any more."""

    def end(self) -> None:
        """Let the next decision begin anew, be it of the same version: what is here is shown until then."""
        self.version = None

    def resize(self, window: int) -> None:
        """Keep so many from now on, the latest of those that are there among them."""
        self.latencies_ms = deque(self.latencies_ms, window)
        self.probabilities = deque(self.probabilities, window)
        self.abstained = deque(self.abstained, window)
        self.ages_s = deque(self.ages_s, window)
        kept = {stage: deque(values, window) for stage, values in self._stages.items()}
        self._stages = defaultdict(lambda: deque(maxlen=window), kept)

    def add(self, observation: Observation) -> None:
        """Take in one. Abstentions never enter the statistics of what the model did."""
        if observation.kind.model_version != self.version:
            # Another model's predictions and times say nothing of this one's.
            self.version = observation.kind.model_version
            for values in (self.latencies_ms, self.probabilities, self.abstained, self.ages_s):
                values.clear()
            self._stages.clear()
        self.abstained.append(observation.probability is None)
        if observation.age_s is not None:
            self.ages_s.append(observation.age_s)
        if observation.probability is None:
            return
        self.probabilities.append(observation.probability)
        self.latencies_ms.append(observation.latency_ms)
        for stage, value in observation.stages_ms.items():
            self._stages[stage].append(value)

    def snapshot(self) -> dict[str, Any]:
        """Return the version that answers, if any does, the percentiles, and the mean prediction."""
        return {
            "model_version": self.version,
            "mean_prediction": round(fmean(self.probabilities), 6) if self.probabilities else None,
            "latency_ms": _percentiles(self.latencies_ms),
            "bar_age_s": _percentiles(self.ages_s),
            "stages_ms": {stage: _percentiles(values) for stage, values in self._stages.items()},
        }


class MonitorState:
    """What `GET /v1/monitor` answers. Not thread-safe: one actor owns it."""

    def __init__(self, window: int, rng: np.random.Generator, clock: Callable[[], float] = time.monotonic) -> None:
        self._window = window
        self._rng = rng
        self._clock = clock
        self._counts: Counter[Kind] = Counter()
        self._ids: dict[str, Kind | None] = {}
        # None: what the journal has counted, and nobody has told.
        self._routers: dict[str, _Router] = {}
        self.variants: defaultdict[VariantName, VariantWindow] = defaultdict(lambda: VariantWindow(self._window))
        self.failed: deque[bool] = deque(maxlen=window)
        """Of the latest requests, whether the server failed."""
        self.drift: dict[str, DriftWatch] = {}
        """By bundle digest."""
        self.learnt: dict[str, Learnt] = {}
        """By bundle digest."""
        self.asked: Collection[VariantName] | None = None
        """Variants that answer somebody by the release in force; None: nobody has said."""
        self.tape = Tape()
        self._unlearnt: dict[str, deque[Seen]] = {}

    def resize(self, window: int) -> None:
        """Keep so many of the latest decisions of each variant from now on."""
        self._window = window
        self.failed = deque(self.failed, window)
        for kept in self.variants.values():
            kept.resize(window)

    def add(self, told: Told) -> Heard:
        """Take in what a router tells, now or before, to a monitor that has lost it since."""
        before = self._routers.get(told.router)
        taken = {one.decision_id for one in told.decisions if self._observe(one)}
        failures = max(0, _failed(told.errors) - _failed(before.errors)) if before is not None else 0
        self.failed.extend(_spread(failures, len(taken)))
        self._routers[told.router] = _Router(told.errors, told.dropped, told.memory, self._clock())
        for symbol, new in told.bars.items():
            self.tape.traded(symbol, new)
        for digest, seen in told.seen.items():
            self._look_at(digest, seen.of(taken))
        return Heard(before is None, tuple(digest for digest in told.seen if digest not in self.learnt))

    def _observe(self, observation: Observation) -> bool:
        """Take one in, unless it has been told; return whether it has not. The journal may have counted it by then."""
        if self._ids.get(observation.decision_id) is not None:
            return False
        if observation.decision_id not in self._ids:
            self._counts[observation.kind] += 1
        self._ids[observation.decision_id] = observation.kind
        self._forget()
        self.tape.decided(observation)
        self.variants[observation.kind.variant].add(observation)
        return True

    def _look_at(self, digest: str, seen: Seen) -> None:
        if digest not in self.learnt:  # its reference is asked for with the answer to this
            self._unlearnt.setdefault(digest, deque(maxlen=_WAITING)).append(seen)
        elif (reference := self.learnt[digest].reference) is not None:
            self.drift.setdefault(digest, DriftWatch(reference, self._rng)).add(seen)

    def _forget(self) -> None:
        if len(self._ids) > 2 * REMEMBERED:
            self._ids = dict(islice(self._ids.items(), REMEMBERED, None))

    def learn(self, digest: str, learnt: Learnt) -> None:
        """Take in what there is to know of a bundle."""
        self.learnt[digest] = learnt
        for seen in self._unlearnt.pop(digest, ()):
            self._look_at(digest, seen)

    def settle(self) -> None:
        """Let go of what has left, before anything is measured: what returns is judged by what it does then."""
        for name, window in self.variants.items():
            if self.asked is not None and name not in self.asked:
                window.end()
        self.drift = {digest: watch for digest, watch in self.drift.items() if self.serves(self.learnt[digest].version)}

    def is_still(self, name: VariantName, version: str | None) -> bool:
        """Whether a variant may answer with a version, or with one that is not known: until another is heard of."""
        if self.asked is not None and name not in self.asked:
            return False
        return version is None or name not in self.variants or self.variants[name].version == version

    def serves(self, version: str) -> bool:
        """Whether any variant may answer with a version; all may while nothing has been heard."""
        known = self.variants if self.asked is None else self.asked
        return not known or any(self.is_still(name, version) for name in known)

    def restore(self, counted: Mapping[Kind, int], latest: Iterable[str]) -> None:
        """Take the journal's counts for those of before; `latest` are the ids of its newest decisions, oldest first.

        What was told meanwhile and is not in the journal yet is added.
        """
        in_journal = dict.fromkeys(latest)
        told = {one: kind for one, kind in self._ids.items() if kind is not None}
        self._counts = Counter(counted)
        self._counts.update(kind for one, kind in told.items() if one not in in_journal)
        self._ids = {**in_journal, **told}

    @property
    def memory(self) -> dict[str, float]:
        """By address of a node that a router still tells of: the largest share of memory in use."""
        found: dict[str, float] = {}
        for router in self._routers.values():
            if self._clock() - router.heard_at <= SILENT_S:
                found.update({node: max(share, found.get(node, 0.0)) for node, share in router.memory.items()})
        return found

    def errors(self) -> Counter[str]:
        """Return the errors of all routers, by code."""
        total: Counter[str] = Counter()
        for router in self._routers.values():
            total.update(router.errors)
        return total

    def snapshot(self) -> dict[str, Any]:
        """Return counts, the action mix and latency percentiles (ms) per variant, drift by bundle, errors by code."""
        names = sorted({kind.variant for kind in self._counts} | set(self.variants))
        return {
            "variants": {str(name): self._variant(name) for name in names},
            "drift": {
                digest: {"model_version": self.learnt[digest].version, "features": watch.snapshot()}
                for digest, watch in self.drift.items()
            },
            "errors": dict(self.errors()),
            "memory": self.memory,
            "dropped_observations": sum(router.dropped for router in self._routers.values()),
            "latency_window": self._window,
        }

    def _variant(self, name: VariantName) -> dict[str, Any]:
        counts = {kind: n for kind, n in self._counts.items() if kind.variant == name}
        versions, actions, abstentions, sizes = (Counter[str](), Counter[str](), Counter[str](), Counter[int]())
        for kind, n in counts.items():
            versions[kind.model_version] += n
            if kind.reason is not None:
                abstentions[str(kind.reason)] += n
                continue
            actions[str(kind.action)] += n
            sizes[kind.batch_size] += n
        return {
            "requests": sum(counts.values()),
            "model_versions": dict(versions),
            "actions": dict(actions),
            "abstentions": dict(abstentions),
            "rows_by_batch_size": {str(size): rows for size, rows in sorted(sizes.items())},
            **self.variants.get(name, VariantWindow(1)).snapshot(),
        }


def _spread(failures: int, answers: int) -> list[bool]:
    """Return which of so many requests failed: evenly, since nobody says when between two tellings each did."""
    n = failures + answers
    return [(i + 1) * failures // n > i * failures // n for i in range(n)]


def _failed(errors: Mapping[str, int]) -> int:
    return sum(n for code, n in errors.items() if code in SERVER_CODES)


def failures(snapshot: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many requests a snapshot counts as failed by the server's fault, and how many as that or answered.

    What was wrong, or refused unread, is in neither, as in `MonitorState.failed`: it would make any share small.
    """
    failed = _failed(snapshot["errors"])
    return failed, failed + sum(variant["requests"] for variant in snapshot["variants"].values())
