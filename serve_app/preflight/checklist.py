"""The checklist: which looks make up which item, and how they are taken.

`fail` is for what must not be deployed: it cannot serve, serves something else than was trained, cannot be taken back,
or is open to others. `warn` is for what somebody has to decide or to do first, since no program can.
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from serve_app.config import ModelConfig
from serve_app.doctor import Check, Verdict, examine
from serve_app.doctor.examine import DAMAGE, FIRST
from serve_app.errors import BundleCorrupt, ConfigError
from serve_app.model import Bundle, load_bundle
from serve_app.pipeline import Pipeline, local_stages
from serve_app.preflight import artifacts, consistency, failures, load, operation, rollback
from serve_app.preflight.deployment import Deployment, read_deployment
from serve_app.preflight.subject import Found, Given, NotExamined, Subject

Look = Callable[[Subject], Found]


def _doctor(name: str) -> Look:
    """What the doctor has found already."""

    def look(subject: Subject) -> Found:
        found = subject.doctor.get(name)
        if found is None:
            raise NotExamined("the doctor did not come to it")
        return Found(found.verdict, found.finding, found.advice)

    return look


FILES = "files"
CHECKLIST: Mapping[str, Mapping[str, Look]] = {
    "Model artifacts versioned and stored securely": {
        FILES: _doctor(FILES),
        "version": artifacts.version,
        "permissions": artifacts.permissions,
        "git": artifacts.git,
        "history": artifacts.history,
        "model": artifacts.model,
    },
    "Feature list as in training, in the same order": {"features": consistency.features},
    "Scaler fitted on the training period only": {"fitted on": consistency.scaler, "numbers": _doctor("scaler")},
    "Preprocessing tested with sample data": {
        "golden": _doctor("golden"),
        "windows": _doctor("features"),
        "parity": consistency.parity,
        "output": _doctor("output"),
        "eval mode": _doctor("eval mode"),
    },
    "Special handling documented": {"handling": consistency.handling},
    "Error handling and fallbacks": {
        "refusals": failures.refusals,
        "bad row": failures.bad_row,
        "no model": failures.no_model,
    },
    "Monitoring and alerting configured": {
        "config": operation.configuration,
        "monitoring": operation.monitoring,
        "alerting": operation.alerting,
    },
    "Rollback procedure tested": {"rollback": rollback.rollback},
    "Load testing completed": {"load": load.load},
    "Security review": {
        "formats": operation.formats,
        "secrets": operation.secrets,
        "exposure": operation.exposure,
    },
    "Performance benchmarks established": {
        "latency": _doctor("latency"),
        "memory": _doctor("memory"),
        "versions": _doctor("versions"),
    },
}
"""Item → its looks, by name."""


def worst(checks: tuple[Check, ...]) -> Verdict:
    """Return the worst verdict."""
    return max((check.verdict for check in checks), key=list(Verdict).index)


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the checklist, with its evidence."""

    title: str
    checks: tuple[Check, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of its checks."""
        return worst(self.checks)


@dataclass(frozen=True, slots=True)
class Preflight:
    """The whole checklist, of one bundle."""

    bundle: str
    digest: str | None
    items: tuple[Item, ...]

    @property
    def checks(self) -> tuple[Check, ...]:
        """Those of all items."""
        return tuple(check for item in self.items for check in item.checks)

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return worst(self.checks)


def preflight(path: str | Path, given: Given) -> Preflight:
    """Go through the checklist. Raises BundleNotFound; everything else that is wrong is found, and said."""
    try:
        bundle = load_bundle(path)
    except BundleCorrupt as error:
        return _corrupt(path, error)
    with np.errstate(all="ignore"), _unlogged():  # what goes wrong is found, and said, by the checks
        subject = _subject(path, bundle, given)
        items = tuple(
            Item(title, tuple(_take(name, look, subject) for name, look in looks.items()))
            for title, looks in CHECKLIST.items()
        )
    return Preflight(str(path), bundle.digest, items)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Keep the traces of failing rows, many of which are made to fail, out of the log."""
    log = logging.getLogger(Pipeline.__module__)
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _corrupt(path: str | Path, error: BundleCorrupt) -> Preflight:
    broken = Check(FILES, Verdict.FAIL, str(error), "restore the bundle from where it was built")
    rest = "not examined: the bundle is not what was built"

    def line(name: str) -> Check:
        return broken if name == FILES else Check(name, Verdict.WARN, rest, FIRST)

    items = tuple(Item(title, tuple(map(line, looks))) for title, looks in CHECKLIST.items())
    return Preflight(str(path), None, items)


def _subject(path: str | Path, bundle: Bundle, given: Given) -> Subject:
    bars = None if bundle.config.feature_set is None else given.bars
    doctor = {check.name: check for check in examine(path, bars).checks}
    return Subject(bundle, given, doctor, _built(bundle), _read(given.config))


def _built(bundle: Bundle) -> Pipeline | Exception:
    try:
        return Pipeline(bundle, local_stages(bundle, ModelConfig()))
    except DAMAGE as error:
        return error


def _read(config: Path | None) -> Deployment | Exception:
    if config is None:
        return NotExamined("there is no configuration to look at", "give --config with the file to be deployed")
    try:
        return read_deployment(config)
    except ConfigError as error:
        return error


def _take(name: str, look: Look, subject: Subject) -> Check:
    try:
        return Check(name, *look(subject))
    except NotExamined as reason:
        return Check(name, Verdict.WARN, f"not examined: {reason}", reason.advice)
    except (*DAMAGE, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        return Check(name, Verdict.FAIL, said, FIRST)
