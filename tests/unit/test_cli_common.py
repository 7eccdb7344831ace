import subprocess
from pathlib import Path

import pytest

from serve_app.cli.common import git, git_commit


def test_a_commit_is_found_and_called_dirty_when_files_differ_from_it(tmp_path: Path) -> None:
    assert git_commit(tmp_path) is None
    who = ("-c", "user.name=ada", "-c", "user.email=ada@desk.example")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "first")):
        (tmp_path / "train.py").write_text("x = 1\n")
        subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "train.py").write_text("x = 2\n")
    assert git_commit(tmp_path) == f"{commit}-dirty"


def test_a_machine_without_git_has_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git(tmp_path, "status") is None
    assert git_commit(tmp_path) is None
