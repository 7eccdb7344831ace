import shutil
from pathlib import Path

import pytest

from serve_app.doctor import Verdict
from serve_app.model import Bundle
from serve_app.model.repository import LINK, Repository
from tests.unit.preflight.bundles import NOW, check, written


@pytest.fixture
def models(bundle: Bundle, tmp_path: Path) -> Path:
    """A repository with v9.8 in production and v9.9 to come."""
    for version in ("v9.8", "v9.9"):
        written(bundle, tmp_path / "models", version)
    promote(tmp_path / "models", "v9.8")
    return tmp_path / "models"


def promote(models: Path, version: str) -> None:
    Repository(models).promote(version, who="ada", why="reviewed", now=NOW)


def contents(folder: Path) -> dict[str, bytes | Path]:
    return {
        str(path): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_a_rollback_is_rehearsed_and_the_repository_left_as_it_is(models: Path) -> None:
    before = contents(models)
    said = check(models / "v9.9", "rollback")
    assert (said.verdict, said.finding) == (
        Verdict.OK,
        "on a copy of the repository: promoted v9.9, rolled back, production leads to v9.8",
    )
    assert contents(models) == before


def test_what_is_in_production_already_goes_back_to_what_was_before(models: Path) -> None:
    promote(models, "v9.9")
    assert check(models / LINK, "rollback").finding.endswith("production leads to v9.8")
    assert Repository(models).production() == "v9.9"


def test_the_first_version_has_nothing_to_go_back_to(models: Path) -> None:
    said = check(models / "v9.8", "rollback")
    assert (said.verdict, said.finding[:42]) == (Verdict.WARN, "nothing was in production before v9.8, so ")


def test_a_link_moved_by_hand_counts(models: Path, bundle: Bundle) -> None:
    written(bundle, models, "v9.7")
    (models / LINK).unlink()
    (models / LINK).symlink_to("v9.7")
    assert check(models / "v9.9", "rollback").finding.endswith("production leads to v9.7")


def test_a_version_that_is_damaged_cannot_be_gone_back_to(models: Path) -> None:
    (models / "v9.8" / "scaler.json").write_text("{}")
    said = check(models / "v9.9", "rollback")
    assert said.verdict is Verdict.FAIL
    assert f"{models / 'v9.8' / 'scaler.json'} has 2 bytes" in said.finding


def test_a_version_that_is_gone_cannot_be_gone_back_to(models: Path) -> None:
    shutil.rmtree(models / "v9.8")
    said = check(models / "v9.9", "rollback")
    assert (said.verdict, f"no bundle at {models / 'v9.8'}" in said.finding) == (Verdict.FAIL, True)


def test_a_version_that_is_another_bundle_by_now_cannot_be_gone_back_to(models: Path, bundle: Bundle) -> None:
    promote(models, "v9.9")
    shutil.rmtree(models / "v9.8")
    written(bundle, models, "v9.8", metadata={**bundle.metadata, "git_commit": "another"})
    said = check(models / "v9.9", "rollback")
    assert said.verdict is Verdict.FAIL
    assert "v9.8 is sha256:" in said.finding
    assert "when it was in production" in said.finding


def test_a_link_that_leads_out_of_the_repository_cannot_be_gone_back_to(
    models: Path, bundle: Bundle, tmp_path: Path
) -> None:
    outside = written(bundle, tmp_path / "elsewhere", "v9.5")
    (models / LINK).unlink()
    (models / LINK).symlink_to(Path("..") / "elsewhere" / "v9.5")
    said = check(models / "v9.9", "rollback")
    assert (said.verdict, f"'{outside}' is not a version" in said.finding) == (Verdict.FAIL, True)
