"""The command as typed; what is found is in the other tests."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deployments.cli import main
from serve_app.cli.preflight import find_tag
from serve_app.model import Bundle
from serve_app.preflight import Tag
from serve_app.preflight.checklist import CHECKLIST
from tests.factories import PRODUCTION
from tests.unit.preflight.bundles import written


def run(*arguments: str | Path) -> Result:
    result = CliRunner().invoke(main, ["preflight", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_each_item_is_a_heading_with_its_lines_and_a_conclusion_follows() -> None:
    result = run(PRODUCTION, "--config", "configs/local.yaml", "--data", "bokeh")
    assert result.exit_code == 0, result.output
    *lines, conclusion = result.output.splitlines()
    headings = [line.rpartition(": ")[0] for line in lines if not line.startswith(" ")]
    assert headings == list(CHECKLIST)
    names = [line[8:21].strip() for line in lines if line.startswith(" ")]
    assert names == [name for looks in CHECKLIST.values() for name in looks]
    assert conclusion.startswith(f"{PRODUCTION} may be deployed: ")
    assert conclusion.endswith(" 0 fail")


def test_what_must_not_be_deployed_is_exit_code_1(bundle: Bundle, tmp_path: Path) -> None:
    path = written(bundle, tmp_path)
    path.chmod(0o777)
    result = run(path)
    assert (result.exit_code, result.output.splitlines()[-1].partition(":")[0]) == (
        1,
        f"{path} must not be deployed",
    )
    (path / "scaler.json").write_text("{}")
    assert run(path).exit_code == 1


def test_programs_get_json() -> None:
    document = json.loads(run(PRODUCTION, "--json").output)
    assert document["verdict"] == "warn"
    assert document["digest"].startswith("sha256:")
    assert [item["title"] for item in document["items"]] == list(CHECKLIST)
    assert all(item["verdict"] in {"ok", "warn"} for item in document["items"])
    assert set(document["items"][0]["checks"][0]) == {"name", "verdict", "finding", "advice"}


def test_no_bundle_and_no_data_are_messages(tmp_path: Path) -> None:
    for arguments, said in (((tmp_path,), "no bundle at"), ((PRODUCTION, "--data", "none.csv"), "no file of bars")):
        result = run(*arguments)
        assert (result.exit_code, said in result.output) == (1, True)


@pytest.fixture
def commits(tmp_path: Path) -> list[str]:
    """Three commits of a git repository; the tag is at the second."""

    def git(*arguments: str) -> str:
        who = ["-c", "user.name=ada", "-c", "user.email=ada@example.org"]
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet")
    made = []
    for number in range(3):
        git("commit", "--quiet", "--allow-empty", "--message", str(number))
        made.append(git("rev-parse", "HEAD"))
    git("tag", "--annotate", "--message", "approved", "model-v9.9", made[1])
    return made


def test_a_tag_is_found_with_what_leads_to_it(tmp_path: Path, commits: list[str]) -> None:
    tags = [find_tag(tmp_path, "model-v9.9", commit) for commit in (*commits, "f" * 40)]
    assert tags == [Tag(commits[1], follows) for follows in (True, True, False, False)]
    assert find_tag(tmp_path, "model-v9.8", commits[0]) is None


def test_without_git_there_is_no_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_tag(tmp_path / "nowhere", "model-v9.9", "f" * 40) is None
    monkeypatch.setenv("PATH", "")
    assert find_tag(tmp_path, "model-v9.9", "f" * 40) is None
