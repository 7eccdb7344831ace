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
    memory: float | None
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
        """Return the percentiles, and the mean prediction."""
        return {
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
        # None: what the journal has counted.
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

    def add(self, told: Told, again: bool = False) -> Heard:
        """Take in what a router tells. `again`: it has told this before, to a monitor that has lost it since."""
        before = self._routers.get(told.router)
        taken = {one.decision_id for one in told.decisions if self._observe(one, again)}
        if before is not None:
            self.failed.extend([True] * (_failed(told.errors) - _failed(before.errors)))
        self._routers[told.router] = _Router(told.errors, told.dropped, told.memory, self._clock())
        for symbol, new in told.bars.items():
            self.tape.traded(symbol, new)
        for digest, seen in told.seen.items():
            self._look_at(digest, seen.of(taken))
        return Heard(before is None, tuple(digest for digest in told.seen if digest not in self.learnt))

    def _observe(self, observation: Observation, again: bool) -> bool:
        """Count one, unless it has been counted; return whether the windows have taken it in."""
        is_new = observation.decision_id not in self._ids
        if is_new:
            self._ids[observation.decision_id] = observation.kind
            self._counts[observation.kind] += 1
            self._forget()
        if is_new or again:
            self.failed.append(False)
            self.tape.decided(observation)
            self.variants[observation.kind.variant].add(observation)
        return is_new or again

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
        told = {one: kind for one, kind in self._ids.items() if kind is not None and one not in in_journal}
        self._counts = Counter(counted)
        self._counts.update(told.values())
        self._ids = {**dict.fromkeys(in_journal), **told}

    @property
    def memory(self) -> float | None:
        """The largest share of memory in use on any node with a router that still tells."""
        alive = [one for one in self._routers.values() if self._clock() - one.heard_at <= SILENT_S]
        return max((one.memory for one in alive if one.memory is not None), default=None)

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


def _failed(errors: Mapping[str, int]) -> int:
    return sum(n for code, n in errors.items() if code in SERVER_CODES)


def failures(snapshot: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many requests a snapshot counts as failed by the server's fault, and how many as that or answered.

    What was wrong, or refused unread, is in neither, as in `MonitorState.failed`: it would make any share small.
    """
    failed = _failed(snapshot["errors"])
    return failed, failed + sum(variant["requests"] for variant in snapshot["variants"].values())
