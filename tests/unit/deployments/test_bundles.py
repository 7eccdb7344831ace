"""Where a graph finds bundles, and what its processes keep of them."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from deployments.bundles import KEPT, BundleRef, Held, Shelf
from serve_app.errors import BundleCorrupt, BundleNotFound, BundleNotLoaded, DigestMismatch
from serve_app.model import Bundle, load_bundle, write_bundle


@pytest.fixture
def repository(bundle: Bundle, tmp_path: Path) -> Path:
    """Versions v1.0 … v1.5."""
    for number in range(6):
        version(bundle, tmp_path, f"v1.{number}")
    return tmp_path


def version(bundle: Bundle, folder: Path, name: str) -> Bundle:
    config = bundle.config.model_copy(update={"model_version": name})
    return write_bundle(replace(bundle, path=folder / name, config=config))


def test_a_version_that_came_later_is_found_by_name_and_by_digest(bundle: Bundle, repository: Path) -> None:
    shelf = Shelf.of(str(repository / "v1.0"))
    later = version(bundle, repository, "v2.0")
    assert shelf.named("v2.0") == shelf.find(later.digest) == BundleRef(str(repository / "v2.0"), later.digest)
    assert shelf.names()[later.digest] == "v2.0"


def test_what_it_was_built_on_is_found_wherever_the_link_leads_now(repository: Path) -> None:
    (repository / "production").symlink_to("v1.0")
    shelf = Shelf.of(str(repository / "production"))
    digest = shelf.refs[0].digest
    (repository / "production").unlink()
    (repository / "production").symlink_to("v1.1")
    assert shelf.find(digest).load().version == "v1.0"


def test_what_is_not_there_is_an_error_that_says_where_it_was_looked_for(repository: Path) -> None:
    shelf = Shelf.of(str(repository / "v1.0"))
    with pytest.raises(BundleNotLoaded, match=f"no bundle in {repository} is sha256:0"):
        shelf.find("sha256:0")
    with pytest.raises(BundleNotFound, match=f"{repository} holds no v3.0, but v1.0, v1.1"):
        shelf.named("v3.0")


def test_a_damaged_version_hides_no_other(repository: Path) -> None:
    (repository / "v1.1" / "manifest.json").write_text("{}")
    (repository / "v1.2" / "scaler.json").write_text("{}")
    shelf = Shelf.of(str(repository / "v1.0"))
    assert set(shelf.names().values()) == {"v1.0", "v1.2", "v1.3", "v1.4", "v1.5"}
    with pytest.raises(BundleCorrupt, match=r"scaler\.json"):
        shelf.named("v1.2").load()


def test_another_bundle_in_the_same_folder_is_not_taken(repository: Path) -> None:
    ref = BundleRef.of(str(repository / "v1.0"))
    shutil.rmtree(repository / "v1.0")
    shutil.copytree(repository / "v1.1", repository / "v1.0")
    with pytest.raises(DigestMismatch, match="the application was built on"):
        ref.load()


def digests(repository: Path) -> list[str]:
    return [load_bundle(repository / f"v1.{number}").digest for number in range(6)]


def held(repository: Path, make: Callable[[Bundle], str]) -> Held[str]:
    return Held(Shelf.of(str(repository / "v1.0")), make)


def test_the_latest_few_are_kept_and_the_others_made_again(repository: Path) -> None:
    made: list[str] = []

    def make(bundle: Bundle) -> str:
        made.append(bundle.version)
        return bundle.version

    kept, names = held(repository, make), digests(repository)
    for digest in names[:KEPT]:
        kept.load(digest)
    assert kept.now(names[0]) == "v1.0"  # used again, so that v1.1 is the longest unused
    asyncio.run(kept.fetch(names[KEPT]))
    assert (kept.now(names[0]), kept.now(names[1])) == ("v1.0", None)
    assert len(list(kept)) == len(list(kept.values())) == KEPT
    assert kept.load(names[1]) == "v1.1"
    assert made == ["v1.0", "v1.1", "v1.2", "v1.3", "v1.4", "v1.1"]


def test_who_asks_meanwhile_gets_the_same_and_who_gives_up_stops_nothing(repository: Path) -> None:
    begun, go_on, made = threading.Event(), threading.Event(), []

    def make(bundle: Bundle) -> str:
        begun.set()
        assert go_on.wait(30)
        made.append(bundle.version)
        return bundle.version

    kept, digest = held(repository, make), digests(repository)[1]

    async def three_ask() -> None:
        asked = [asyncio.create_task(kept.fetch(digest)) for _ in range(3)]
        await asyncio.to_thread(begun.wait, 30)
        asked[0].cancel()
        go_on.set()
        assert await asyncio.gather(*asked[1:]) == ["v1.1", "v1.1"]

    asyncio.run(three_ask())
    assert made == ["v1.1"]


def test_what_cannot_be_made_is_tried_again_when_it_is_asked_for_again(repository: Path) -> None:
    failures = iter([RuntimeError("no memory")])

    def make(bundle: Bundle) -> str:
        for failure in failures:
            raise failure
        return bundle.version

    kept, digest = held(repository, make), digests(repository)[1]
    with pytest.raises(RuntimeError, match="no memory"):
        asyncio.run(kept.fetch(digest))
    assert asyncio.run(kept.fetch(digest)) == "v1.1"
