"""Versioned, and stored where nobody else can change them."""

import stat
from pathlib import Path

from serve_app.doctor import Verdict
from serve_app.model.bundle import tag_of
from serve_app.model.repository import Repository
from serve_app.preflight.subject import Found, Subject

SHOWN = 12
"""Characters of a commit."""


def version(subject: Subject) -> Found:
    """The folder bears the name of the version, as a model repository needs it."""
    bundle = subject.bundle
    folder = bundle.path
    if folder.name != bundle.version:
        finding = f"{bundle.version} lies in a folder called {folder.name}"
        return Found(Verdict.WARN, finding, f"put it into a model repository as {bundle.version}, to promote it")
    serving = Repository(folder.parent).production() or "nothing"
    return Found(Verdict.OK, f"{bundle.version} in the repository {folder.parent}; in production there is {serving}")


def permissions(subject: Subject) -> Found:
    """Nobody but owner and group can put another model into its place."""
    folder = subject.bundle.path
    paths = [folder.parent, folder, *sorted(folder.iterdir())]
    exposed = [path for path in paths if _others_may_write(path)]
    if exposed:
        finding = f"others may write {', '.join(map(str, exposed))}"
        return Found(Verdict.FAIL, finding, f"chmod o-w {' '.join(map(str, exposed))}; then verify the bundle")
    return Found(Verdict.OK, f"{len(paths) - 2} plain files, no links; others may write none of them, nor the folders")


def _others_may_write(path: Path) -> bool:
    mode = path.stat().st_mode
    # In a sticky folder, such as /tmp, others may add files and not replace ours.
    return bool(mode & stat.S_IWOTH) and not (stat.S_ISDIR(mode) and mode & stat.S_ISVTX)


def git(subject: Subject) -> Found:
    """The code that trained it can be found again."""
    bundle = subject.bundle
    commit, tag = bundle.metadata.get("git_commit"), tag_of(bundle.version)
    if not isinstance(commit, str):
        advice = "train in a git repository, so that the code that made the model can be found again"
        return Found(Verdict.WARN, "metadata.json names no commit that it was trained from", advice)
    if commit.endswith("-dirty"):
        finding = f"trained from commit {commit[:SHOWN]} with changes that were not committed"
        return Found(Verdict.WARN, finding, "commit them, then train again: nobody can find that code now")
    found = subject.given.find_tag(bundle.path, tag, commit)
    trained = f"trained from commit {commit[:SHOWN]}, without other changes"
    if found is None:
        return Found(Verdict.WARN, f"{trained}; there is no tag {tag} here", f"git tag {tag} {commit[:SHOWN]}")
    if not found.follows_training:
        finding = f"{trained}; the tag {tag} is at {found.commit[:SHOWN]}, which that commit does not lead to"
        return Found(Verdict.WARN, finding, "find out which of the two is wrong; a tag never moves")
    return Found(Verdict.OK, f"{trained}; the tag {tag} is at {found.commit[:SHOWN]}")


def history(subject: Subject) -> Found:
    """The history of the repository knows its digest, or nothing under its version."""
    bundle = subject.bundle
    entries = Repository(bundle.path.parent).history()
    served: set[tuple[str | None, str | None]] = {(entry.version, entry.digest) for entry in entries}
    served |= {(entry.previous_version, entry.previous_digest) for entry in entries}
    others = {digest for name, digest in served if name == bundle.version and digest not in (None, bundle.digest)}
    if others:
        finding = f"as {bundle.version} the history knows another bundle, {', '.join(sorted(map(str, others)))}"
        return Found(
            Verdict.FAIL, finding, "a version is one bundle for ever; build this one under a version of its own"
        )
    promoted = [entry for entry in entries if entry.digest == bundle.digest]
    if not promoted:
        return Found(
            Verdict.OK, f"{len(entries)} moves, their chain unbroken; this digest was never put into production"
        )
    last = promoted[-1]
    when = f"last at {last.at:%Y-%m-%d %H:%M} UTC by {last.who}: {last.why}"
    return Found(
        Verdict.OK, f"{len(entries)} moves, their chain unbroken; {len(promoted)} of them to this digest, {when}"
    )


def model(subject: Subject) -> Found:
    """The stages can be built from it."""
    if isinstance(subject.built, Exception):
        raise subject.built
    config = subject.bundle.config
    return Found(
        Verdict.OK,
        f"{config.architecture}, served by {config.runtime} in {config.precision}; digest {subject.bundle.digest}",
    )
