"""What may be changed of a release: functions from one to the next. See `releases` for what they mean."""

from collections.abc import Callable, Mapping

from serve_app.errors import ReleaseRefused
from serve_app.router.releases import Release
from serve_app.types import Thresholds, VariantName, other_of


def split(
    share: float | None, salt: str | None, pins: Mapping[str, VariantName] | None
) -> Callable[[Release], Release]:
    """Return the change that gives the candidate other symbols; what is None stays."""

    def change(release: Release) -> Release:
        asked = {"candidate_share": share, "salt": salt, "pins": pins}
        given = {name: value for name, value in asked.items() if value is not None}
        return release.changed(assignment={**dict(release.assignment), **given})

    return change


def shadowed(on: bool, share: float = 1.0) -> Callable[[Release], Release]:
    """Return the change that lets each variant score a share of what the other answers, or ends that."""

    def change(release: Release) -> Release:
        return release.changed(shadow=on, shadow_share=share)

    return change


def replaced(candidate: str) -> Callable[[Release], Release]:
    """Return the change that makes another bundle the candidate, which answers nobody yet."""

    def change(release: Release) -> Release:
        for name in VariantName:
            if candidate == getattr(release, name):
                raise ReleaseRefused(f"{candidate} is the {name} already")
        thresholds = {name: kept for name, kept in release.thresholds.items() if name is not VariantName.CANDIDATE}
        return release.quiet().changed(candidate=candidate, shadow=False, thresholds=thresholds)

    return change


def rethought(variant: VariantName, thresholds: Thresholds | None) -> Callable[[Release], Release]:
    """Return the change that gives a variant thresholds of its own, or those of its bundle again."""

    def change(release: Release) -> Release:
        others = {name: kept for name, kept in release.thresholds.items() if name is not variant}
        return release.changed(thresholds=others if thresholds is None else {**others, variant: thresholds})

    return change


def promoted(release: Release) -> Release:
    """Return the release in which the candidate has become production. Raises ReleaseRefused when there is none."""
    if release.candidate is None:
        raise ReleaseRefused("there is no candidate to promote")
    return release.quiet().changed(
        production=release.candidate,
        candidate=release.production,
        shadow=False,
        thresholds={other_of(name): thresholds for name, thresholds in release.thresholds.items()},
    )
