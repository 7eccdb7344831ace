"""The lanes of one router: for each variant of a release its pipeline, and the batcher in front of it."""

import asyncio
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain

from deployments.autoscaling import Backlog
from deployments.batching import Batcher, Limits, Sent
from deployments.bundles import KEPT, Held, Shelf
from deployments.ingress import room
from deployments.metrics import BatchMetrics
from deployments.node import merged
from deployments.stages import Loaded, StageHandles, make_stages
from serve_app.config import AppConfig, BatchingConfig, VariantConfig
from serve_app.errors import BundleNotLoaded, ReleaseRefused
from serve_app.model import Bundle
from serve_app.pipeline import Pipeline
from serve_app.router.releases import Release
from serve_app.service import Lane
from serve_app.types import Thresholds, VariantName


def _limits(variant: VariantConfig, batching: BatchingConfig, max_calls: float) -> Limits:
    """Give one variant a queue and a deadline of its own."""
    return Limits(
        max_batch_size=batching.max_batch_size,
        max_in_flight=batching.max_in_flight,
        max_queued_rows=variant.max_queued_rows,
        deadline_s=variant.deadline_ms / 1e3,
        max_queue_s=(variant.max_queue_ms or variant.deadline_ms / 2) / 1e3,
        max_wait_s=batching.max_wait_ms / 1e3,
        max_calls=max_calls,
    )


@dataclass(frozen=True, slots=True)
class _VariantLane:
    """What one variant is in one release: which bundle, by what thresholds, gathered by whom."""

    loaded: Loaded
    thresholds: Thresholds | None
    lane: Lane
    batcher: Batcher

    @property
    def digest(self) -> str:
        return self.loaded.bundle.digest


class Lanes:
    """Makes lanes for releases of bundles on a shelf. What two releases have in common stays."""

    def __init__(self, config: AppConfig, shelf: Shelf, handles: StageHandles | None, router: str) -> None:
        self._config = config
        self._shelf = shelf
        self._handles = handles
        self._variants = config.variants.configured()
        self._batching = config.router.batching
        self._router = router
        self._slots: Mapping[str, VariantName] = {}
        self._held = {slot: Held(shelf, partial(self._make, slot), KEPT // len(VariantName)) for slot in VariantName}
        self._metrics = {name: BatchMetrics(name) for name in VariantName}
        self._current: dict[VariantName, _VariantLane] = {}

    def _make(self, slot: VariantName, bundle: Bundle) -> Loaded:
        return make_stages(self._config, slot, bundle, self._handles, partial(self._backlog, bundle.digest))

    def names(self) -> dict[str, str]:
        """Return the version of each bundle on the shelf, by digest."""
        return self._shelf.names()

    def places(self) -> dict[VariantName, VariantName]:
        """Return in which of the two places for models each variant's is, see `serve_app.router.slots`."""
        return {name: made.loaded.slot for name, made in self._current.items()}

    def symbols(self) -> set[str]:
        """Return what the bundles know that serve now."""
        return {symbol for made in self._current.values() for symbol in made.lane.pipeline.bundle.symbol_to_id}

    def check_health(self) -> None:
        """Raise StageFailed when a model that is held in this process hangs."""
        serving = [made.loaded for made in self._current.values()]
        for loaded in (*serving, *chain.from_iterable(held.values() for held in self._held.values())):
            loaded.check_health()

    async def memory(self) -> dict[str, float]:
        """Return the share of memory in use, by node, where stages are elsewhere."""
        return merged(await asyncio.gather(*(made.loaded.memory() for made in self._current.values())))

    def check(self, release: Release) -> None:
        """Raise ReleaseRefused for a release of bundles that are not on the shelf: nobody could answer for them."""
        for digest in release.digests().values():
            try:
                self._shelf.find(digest)
            except BundleNotLoaded as error:
                raise ReleaseRefused(str(error)) from error

    def of(self, release: Release, slots: Mapping[str, VariantName]) -> dict[VariantName, Lane]:
        """Return the lane of each variant, once what is not held yet is loaded, here and now.

        `slots`: see `serve_app.router.slots`. Raises what loading a bundle raises.
        """
        self._slots = slots
        loaded = {
            name: self._serving(digest) or self._held_of(digest).load(digest)
            for name, digest in release.digests().items()
        }
        self._current = {
            name: self._variant_lane(name, one, release.thresholds.get(name)) for name, one in loaded.items()
        }
        return {name: made.lane for name, made in self._current.items()}

    async def load(self, digests: Iterable[str], slots: Mapping[str, VariantName]) -> None:
        """Hold bundles, here and wherever else their stages are, beside what serves meanwhile.

        Raises BundleNotLoaded, and whatever keeps one from being loaded.
        """
        self._slots = slots
        for digest in set(digests):
            if self._serving(digest) is None:
                await (await self._held_of(digest).fetch(digest)).spread()

    def _slot(self, digest: str) -> VariantName:
        return self._slots.get(digest, VariantName.CANDIDATE)

    def _held_of(self, digest: str) -> Held[Loaded]:
        """Return what is held of the bundles in the place where one is: another place has other replicas."""
        return self._held[self._slot(digest)]

    def _serving(self, digest: str) -> Loaded | None:
        """Return what serves a bundle now, in its place: it stays, however many others are asked for meanwhile."""
        place = digest, self._slot(digest)
        serving = [made.loaded for made in self._current.values()]
        return next((loaded for loaded in serving if (loaded.bundle.digest, loaded.slot) == place), None)

    def bundle(self, digest: str) -> Bundle:
        """Return a bundle on the shelf. Raises BundleNotLoaded or BundleCorrupt."""
        return self._shelf.find(digest).load()

    async def named(self, version: str) -> str:
        """Return the digest of a version on the shelf. Raises BundleNotFound."""
        return (await asyncio.to_thread(self._shelf.named, version)).digest

    async def pipeline(self, digest: str, thresholds: Thresholds | None) -> Pipeline:
        """Return the pipeline of a bundle, past all batches. Raises BundleNotLoaded, and what loading it raises."""
        loaded = self._serving(digest) or await self._held_of(digest).fetch(digest)
        return Pipeline(loaded.bundle, loaded.stages, thresholds=thresholds)

    def tune(self, batching: BatchingConfig) -> None:
        """Gather rows by other limits from the next batch on."""
        self._batching = batching
        for name, made in self._current.items():
            made.batcher.limits = self._limits(name)

    def _variant_lane(self, name: VariantName, loaded: Loaded, thresholds: Thresholds | None) -> _VariantLane:
        before = self._current.get(name)
        if before is not None and before.loaded is loaded and before.thresholds == thresholds:
            return before
        pipeline = Pipeline(loaded.bundle, loaded.stages, thresholds=thresholds)
        metrics = self._metrics[name]

        def sent(batch: Sent) -> None:
            metrics.sent(batch, batcher.outstanding)

        batcher = Batcher(pipeline.run, pipeline.abstain, self._limits(name), sent)
        return _VariantLane(loaded, thresholds, Lane(pipeline, batcher.submit), batcher)

    def _limits(self, name: VariantName) -> Limits:
        # A bundle that became a variant which the file does not configure has the limits of production.
        variant = self._variants.get(name, self._variants[VariantName.PRODUCTION])
        # Until its first deadline nobody knows that a candidate hangs: half of the router's places stay production's.
        return _limits(variant, self._batching, room() / 2 if name is VariantName.CANDIDATE else math.inf)

    def _backlog(self, digest: str) -> Backlog:
        rows = sum(made.batcher.outstanding for made in self._current.values() if made.digest == digest)
        return Backlog(f"{self._router}/{digest}", rows)
