"""The lanes of one router: for each variant of a release its pipeline, and the batcher in front of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from deployments.autoscaling import Backlog
from deployments.batching import Batcher, Limits, Sent
from deployments.bundles import BundleRef
from deployments.metrics import BatchMetrics
from deployments.stages import StageHandles, make_stages
from serve_app.config import AppConfig, BatchingConfig, VariantConfig
from serve_app.errors import BundleNotLoaded, ReleaseRefused
from serve_app.model import Bundle
from serve_app.pipeline import Pipeline, Stages
from serve_app.router.releases import Release
from serve_app.service import Lane
from serve_app.types import Thresholds, VariantName


def _limits(variant: VariantConfig, batching: BatchingConfig) -> Limits:
    """Give one variant a queue and a deadline of its own."""
    return Limits(
        max_batch_size=batching.max_batch_size,
        max_in_flight=batching.max_in_flight,
        max_queued_rows=variant.max_queued_rows,
        deadline_s=variant.deadline_ms / 1e3,
        max_queue_s=(variant.max_queue_ms or variant.deadline_ms / 2) / 1e3,
        max_wait_s=batching.max_wait_ms / 1e3,
    )


@dataclass(frozen=True, slots=True)
class _Loaded:
    """A bundle, and the stages that compute it."""

    bundle: Bundle
    stages: Stages


@dataclass(frozen=True, slots=True)
class _VariantLane:
    """What one variant is in one release: which bundle, by what thresholds, gathered by whom."""

    digest: str
    thresholds: Thresholds | None
    lane: Lane
    batcher: Batcher


class Lanes:
    """Makes lanes for releases of the bundles that this graph has loaded. What two releases have in common stays."""

    def __init__(
        self, config: AppConfig, refs: Mapping[VariantName, BundleRef], handles: StageHandles | None, router: str
    ) -> None:
        self._variants = config.variants.configured()
        self._batching = config.router.batching
        self._router = router
        self._loaded: dict[str, _Loaded] = {}
        for slot, ref in refs.items():
            if ref.digest not in self._loaded:
                bundle = ref.load()
                stages = make_stages(config, slot, bundle, handles, partial(self._backlog, ref.digest))
                self._loaded[ref.digest] = _Loaded(bundle, stages)
        self._metrics = {name: BatchMetrics(name) for name in VariantName}
        self._current: dict[VariantName, _VariantLane] = {}

    @property
    def bundles(self) -> dict[str, Bundle]:
        """The bundles that are loaded, by digest."""
        return {digest: loaded.bundle for digest, loaded in self._loaded.items()}

    def check(self, release: Release) -> None:
        """Raise ReleaseRefused for a release of bundles that are not loaded: nobody could answer for them."""
        missing = {release.production, release.candidate} - {None, *self._loaded}
        if missing:
            held = ", ".join(f"{loaded.bundle.version} ({digest})" for digest, loaded in self._loaded.items())
            raise ReleaseRefused(
                f"the release names {', '.join(sorted(map(str, missing)))}, which is not loaded here; {held} are:"
                " name the bundle under `variants` and start the graph again"
            )

    def of(self, release: Release) -> dict[VariantName, Lane]:
        """Return the lane of each variant. Raises ReleaseRefused, see `check`."""
        self.check(release)
        digests = {VariantName.PRODUCTION: release.production, VariantName.CANDIDATE: release.candidate}
        self._current = {
            name: self._variant_lane(name, digest, release.thresholds.get(name))
            for name, digest in digests.items()
            if digest is not None
        }
        return {name: made.lane for name, made in self._current.items()}

    def pipeline(self, digest: str, thresholds: Thresholds | None) -> Pipeline:
        """Return the pipeline of a bundle, past all batches. Raises BundleNotLoaded."""
        loaded = self._loaded.get(digest)
        if loaded is None:
            raise BundleNotLoaded(
                f"bundle {digest} is not loaded here; name it under `variants` to replay what it decided"
            )
        return Pipeline(loaded.bundle, loaded.stages, thresholds=thresholds)

    def tune(self, batching: BatchingConfig) -> None:
        """Gather rows by other limits from the next batch on."""
        self._batching = batching
        for name, made in self._current.items():
            made.batcher.limits = self._limits(name)

    def _variant_lane(self, name: VariantName, digest: str, thresholds: Thresholds | None) -> _VariantLane:
        before = self._current.get(name)
        if before is not None and (before.digest, before.thresholds) == (digest, thresholds):
            return before
        pipeline = self.pipeline(digest, thresholds)
        metrics = self._metrics[name]

        def sent(batch: Sent) -> None:
            metrics.sent(batch, batcher.outstanding)

        batcher = Batcher(pipeline.run, pipeline.abstain, self._limits(name), sent)
        return _VariantLane(digest, thresholds, Lane(pipeline, batcher.submit), batcher)

    def _limits(self, name: VariantName) -> Limits:
        # A bundle that became a variant which the file does not configure has the limits of production.
        return _limits(self._variants.get(name, self._variants[VariantName.PRODUCTION]), self._batching)

    def _backlog(self, digest: str) -> Backlog:
        rows = sum(made.batcher.outstanding for made in self._current.values() if made.digest == digest)
        return Backlog(f"{self._router}/{digest}", rows)
