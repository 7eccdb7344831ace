import shutil
from pathlib import Path

import pytest

from serve_app.doctor import Verdict
from serve_app.model import Bundle
from serve_app.model.repository import HISTORY, Repository
from serve_app.preflight import Tag
from tests.unit.preflight.bundles import NOW, check, with_metadata, written

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def promoted(models: Path, version: str) -> None:
    Repository(models).promote(version, who="ada", why="reviewed", now=NOW)


def test_a_version_says_which_repository_it_is_in(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    assert check(path, "version").finding == f"v9.9 in the repository {tmp_path}; in production there is nothing"
    promoted(tmp_path, "v9.9")
    said = check(tmp_path / "production", "version")
    assert (said.verdict, said.finding) == (
        Verdict.OK,
        f"v9.9 in the repository {tmp_path}; in production there is v9.9",
    )


def test_a_folder_of_another_name_is_no_place_for_a_version(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path).rename(tmp_path / "latest")
    said = check(path, "version")
    assert (said.verdict, said.finding) == (Verdict.WARN, "v9.9 lies in a folder called latest")
    assert "in no model repository" in check(path, "rollback").finding


def test_a_link_that_is_none_is_found(bundle: Bundle, tmp_path: Path) -> None:
    shutil.copytree(written(bundle, tmp_path), tmp_path / "production")
    said = check(tmp_path / "v9.9", "version")
    assert (said.verdict, "production is not a link" in said.finding) == (Verdict.FAIL, True)


@pytest.mark.parametrize("exposed", ["v9.9/golden.npz", "v9.9", "."])
def test_what_others_may_write_is_named(bundle: Bundle, tmp_path: Path, exposed: str) -> None:
    path = written(bundle, tmp_path)
    assert check(path, "permissions").verdict is Verdict.OK
    target = tmp_path / exposed
    target.chmod(target.stat().st_mode | 0o002)
    said = check(path, "permissions")
    assert (said.verdict, said.finding) == (Verdict.FAIL, f"others may write {target}")
    assert said.advice.startswith(f"chmod o-w {target};")


def test_in_a_sticky_folder_others_cannot_replace_anything(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    tmp_path.chmod(0o1777)
    assert check(path, "permissions").verdict is Verdict.OK


@pytest.mark.parametrize(
    ("commit", "tag", "verdict", "said"),
    [
        (None, None, Verdict.WARN, "names no commit"),
        (7, None, Verdict.WARN, "names no commit"),
        (f"{COMMIT}-dirty", None, Verdict.WARN, "from commit 0123456789ab with changes that were not committed"),
        (COMMIT, None, Verdict.WARN, "there is no tag model-v9.9 here"),
        (COMMIT, Tag("f" * 40, follows_training=False), Verdict.WARN, "at ffffffffffff, which that commit does not"),
        (COMMIT, Tag(COMMIT, follows_training=True), Verdict.OK, "the tag model-v9.9 is at 0123456789ab"),
    ],
)
def test_the_code_that_trained_it_can_be_found_again_or_not(
    bundle: Bundle, tmp_path: Path, commit: object, tag: Tag | None, verdict: Verdict, said: str
) -> None:
    asked: list[tuple[Path, str, str]] = []

    def find_tag(*question: object) -> Tag | None:
        asked.append(question)  # type: ignore[arg-type]
        return tag

    path = with_metadata(bundle, tmp_path, git_commit=commit)
    found = check(path, "git", find_tag=find_tag)
    assert (found.verdict, said in found.finding) == (verdict, True), found
    assert asked == ([(path, "model-v9.9", COMMIT)] if commit == COMMIT else [])


def test_the_history_says_when_a_digest_was_put_into_production(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    written(bundle, tmp_path, "v9.8")
    assert check(path, "history").finding.startswith("0 moves")
    promoted(tmp_path, "v9.8")
    assert check(path, "history").finding.endswith("this digest was never put into production")
    promoted(tmp_path, "v9.9")
    said = check(path, "history")
    assert (said.verdict, said.finding) == (
        Verdict.OK,
        "2 moves, their chain unbroken; 1 of them to this digest, last at 2026-01-02 03:04 UTC by ada: reviewed",
    )


def test_a_version_that_was_another_bundle_before_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    promoted(tmp_path, "v9.9")
    shutil.rmtree(path)
    with_metadata(bundle, tmp_path, git_commit=COMMIT)
    said = check(path, "history")
    assert (said.verdict, said.finding[:46]) == (Verdict.FAIL, "as v9.9 the history knows another bundle, sha2")


def test_an_altered_history_is_found(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    promoted(tmp_path, "v9.9")
    history = tmp_path / HISTORY
    history.write_text(history.read_text().replace("ada", "bob"))
    for name in ("history", "rollback"):
        said = check(path, name)
        assert (said.verdict, "was altered" in said.finding) == (Verdict.FAIL, True)
        assert f"line 1 of {history}" in said.finding
