"""Bundles in repositories of their own, and the checklist gone through quickly."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from serve_app.doctor import Check
from serve_app.model import Bundle, write_bundle
from serve_app.preflight import Given, Preflight, preflight

NOW = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
ROWS = 64
"""Through the stages, per batch size: enough to see that they are taken."""


def written(bundle: Bundle, models: Path, version: str = "v9.9", **changes: Any) -> Path:
    """A bundle as one version of a repository."""
    config = changes.pop("config", bundle.config).model_copy(update={"model_version": version})
    return write_bundle(replace(bundle, path=models / version, config=config, **changes)).path


def with_metadata(bundle: Bundle, models: Path, **metadata: Any) -> Path:
    """A bundle of which other things are known."""
    return written(bundle, models, metadata={**bundle.metadata, **metadata})


def go_through(path: Path, **given: Any) -> Preflight:
    """The checklist on few rows."""
    return preflight(path, Given(NOW, **{"rows": ROWS, **given}))


def checks(found: Preflight) -> Mapping[str, Check]:
    """The checks by name."""
    return {check.name: check for check in found.checks}


def check(path: Path, name: str, **given: Any) -> Check:
    """One line of the checklist."""
    return checks(go_through(path, **given))[name]
