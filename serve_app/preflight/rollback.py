"""The way back, rehearsed on a copy of the repository: promote this version there, roll back, and look at the link."""

import shutil
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from serve_app.doctor import Verdict
from serve_app.errors import ServeAppError
from serve_app.model.history import walk_of
from serve_app.model.repository import HISTORY, LINK, VERSION, Repository
from serve_app.preflight.subject import Found, NotExamined, Subject

WHO, WHY = "preflight", "rehearsal"


def rollback(subject: Subject) -> Found:
    """After a promotion, `models rollback` brings back what was in production before."""
    bundle = subject.bundle
    if bundle.path.name != bundle.version:
        raise NotExamined("it is in no model repository", f"put it into one as {bundle.version}")
    repository = Repository(bundle.path.parent)
    with TemporaryDirectory(prefix="signalgraph-preflight-") as folder:
        try:
            return _rehearse(_copy(repository, Path(folder)), bundle.version, subject.given.now)
        except ServeAppError as error:
            said = str(error).replace(folder, str(repository.folder))
            advice = "mend the repository, or promote a version that can be gone back to, before this one"
            return Found(Verdict.FAIL, f"on a copy of the repository it fails: {said}", advice)


def _copy(repository: Repository, folder: Path) -> Repository:
    """Copy versions, link and history: all that a promotion and a rollback read."""
    for path in repository.folder.iterdir():
        if VERSION.fullmatch(path.name) and path.is_dir():
            shutil.copytree(path, folder / path.name, symlinks=True)
    production = repository.production()
    if production is not None:
        inside = VERSION.fullmatch(production)
        (folder / LINK).symlink_to(production if inside else (repository.folder / production).resolve())
    history = repository.folder / HISTORY
    if history.exists():
        shutil.copy(history, folder / HISTORY)
    return Repository(folder)


def _rehearse(copy: Repository, version: str, now: datetime) -> Found:
    copy.promote(version, who=WHO, why=WHY, now=now)
    walk = walk_of(copy.history(), None)
    if len(walk) < 2:
        advice = "decide who stops the graph if it goes wrong, or promote a proven version first"
        return Found(
            Verdict.WARN, f"nothing was in production before {version}, so no rollback leads away from it", advice
        )
    before = walk[-2].version
    copy.rollback(who=WHO, why=WHY, now=now)
    if copy.production() != before:
        return Found(Verdict.FAIL, f"a rollback leads to {copy.production()}, not to {before}", "do not deploy it")
    return Found(Verdict.OK, f"on a copy of the repository: promoted {version}, rolled back, {LINK} leads to {before}")
