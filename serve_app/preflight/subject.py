"""What is examined: a bundle with its stages, next to what the caller gives to hold it against."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from serve_app.config import VariantConfig
from serve_app.doctor import Check, Verdict
from serve_app.doctor.examine import FIRST
from serve_app.model import Bundle
from serve_app.parity import golden_requests
from serve_app.pipeline import Pipeline
from serve_app.preflight.deployment import Deployment
from serve_app.types import Bars, SignalRequest


class Found(NamedTuple):
    """What one look has found, and what to do about it unless it is ok."""

    verdict: Verdict
    finding: str
    advice: str = ""


class NotExamined(Exception):
    """There is nothing to look at; says why, and what would change that."""

    def __init__(self, reason: str, advice: str = FIRST) -> None:
        super().__init__(reason)
        self.advice = advice


@dataclass(frozen=True, slots=True)
class Tag:
    """A git tag: its commit, and whether the commit that a model was trained from leads to it."""

    commit: str
    follows_training: bool


FindTag = Callable[[Path, str, str], Tag | None]
"""Folder, name of the tag, commit of the training → the tag; None where there is none."""


def no_tags(_folder: Path, _tag: str, _commit: str) -> None:
    """Know of no tag: what holds outside git."""


@dataclass(frozen=True, slots=True)
class Given:
    """What a bundle is held against besides itself."""

    now: datetime
    """Aware of its time zone."""
    bars: Mapping[str, Bars] | None = None
    config: Path | None = None
    """The Serve config that will be deployed."""
    find_tag: FindTag = no_tags
    rows: int = 2000
    """Through the stages, per batch size."""
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class Subject:
    """A bundle on its way into production. What could not be built or read is kept as the error that says why."""

    bundle: Bundle
    given: Given
    doctor: Mapping[str, Check]
    built: Pipeline | Exception
    read: Deployment | Exception

    @property
    def features_only(self) -> bool:
        """Whether bars say nothing to it."""
        return self.bundle.config.feature_set is None

    @property
    def pipeline(self) -> Pipeline:
        """All stages in this process. Raises NotExamined."""
        if isinstance(self.built, Exception):
            raise NotExamined("the stages of the bundle cannot be built")
        return self.built

    @property
    def deployment(self) -> Deployment:
        """What will be deployed. Raises NotExamined."""
        if isinstance(self.read, NotExamined):
            raise self.read
        if isinstance(self.read, Exception):
            raise NotExamined("the configuration cannot be used")
        return self.read

    @property
    def deadline_ms(self) -> float:
        """The deadline of the variant that it will be; the default without a configuration."""
        if isinstance(self.read, Exception):
            return VariantConfig(bundle="").deadline_ms
        variants = self.read.app.variants
        name = self.read.serves(self.bundle)
        return (variants.configured()[name] if name else variants.production).deadline_ms

    @property
    def requests(self) -> list[SignalRequest]:
        """Requests that it answers: its golden cases. Raises NotExamined."""
        golden = self.bundle.golden
        if not len(golden):
            raise NotExamined("the bundle has no golden cases to make requests of", "build it anew")
        return golden_requests(golden, self.pipeline.feature_set, self.bundle.config.strategy.holding_unit)
