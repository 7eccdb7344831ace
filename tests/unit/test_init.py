import re
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from deployments.cli import COMMANDS, main
from deployments.config_check import faults_of_file
from serve_app.scaffold import PLACEHOLDER, CannotCreate, create
from tests.factories import ROOT

FILES = {".gitignore", "README.md", "ask.py", "serve.yaml", "test_model.py", "train.py"}
YAML_BLOCKS = re.compile(r"```yaml\n(.*?)```", re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def project(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the shipped models in place of trained ones; commands run in it."""
    create(folder, "desk-a")
    (folder / "desk-a" / "models").symlink_to(ROOT / "models")
    monkeypatch.chdir(folder / "desk-a")
    return folder / "desk-a"


def init(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["init", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_a_project_has_its_files_and_nothing_else(folder: Path) -> None:
    result = init("desk-a")
    assert result.exit_code == 0, result.output
    *named, following = result.output.splitlines()
    assert {str(Path("desk-a") / name) for name in FILES} == set(named)
    assert {str(path.relative_to(folder / "desk-a")) for path in (folder / "desk-a").rglob("*")} == FILES
    assert following.startswith("next: cd desk-a && python train.py && signalgraph up serve.yaml;")


def test_the_readme_bears_the_name(folder: Path) -> None:
    create(folder, "desk-a")
    texts = [(folder / "desk-a" / name).read_text() for name in FILES]
    assert (folder / "desk-a" / "README.md").read_text().startswith("# desk-a\n")
    assert not any(PLACEHOLDER in text for text in texts)


def test_an_empty_folder_is_filled(folder: Path) -> None:
    (folder / "desk-a").mkdir()
    assert init("desk-a").exit_code == 0


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", "a b", ".hidden", "ä", "a\n", "-a", "~", "a\\b"])  # noqa: S108
def test_what_is_no_plain_folder_name_is_refused(folder: Path, name: str) -> None:
    result = init("--", name)
    assert (result.exit_code, "is no plain folder name; use letters" in result.output) == (1, True)
    assert list(folder.iterdir()) == []


def test_what_is_there_already_stays_as_it_is(folder: Path) -> None:
    (folder / "desk-a").mkdir()
    (folder / "desk-a" / "train.py").write_text("mine")
    (folder / "a-file").write_text("mine")
    (folder / "nowhere").symlink_to("gone")
    for name, said in (("desk-a", "not empty"), ("a-file", "not a folder"), ("nowhere", "not a folder")):
        result = init(name)
        assert (result.exit_code, said in result.output) == (1, True), result.output
    assert [path.read_text() for path in (folder / "desk-a").iterdir()] == ["mine"]
    assert (folder / "a-file").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_a_message(folder: Path) -> None:
    with pytest.raises(CannotCreate, match="cannot be written"):
        create(folder / "gone", "desk-a")


def test_the_configuration_is_the_shipped_one_and_fine(project: Path) -> None:
    local = yaml.safe_load((ROOT / "configs/local.yaml").read_text())
    assert yaml.safe_load((project / "serve.yaml").read_text()) == local
    assert faults_of_file(project / "serve.yaml") == []


def test_the_two_parts_that_the_readme_adds_make_an_experiment(project: Path) -> None:
    beside, application = YAML_BLOCKS.findall((project / "README.md").read_text())
    production = "        production: {bundle: &production models/production}\n"
    content = (project / "serve.yaml").read_text()
    assert production in content
    (project / "ab_test.yaml").write_text(content.replace(production, production + beside) + application)
    assert faults_of_file(project / "ab_test.yaml") == []
    args = yaml.safe_load((project / "ab_test.yaml").read_text())["applications"][0]["args"]
    assert args["variants"]["candidate"] == {"bundle": "models/v1.1"}
    assert args["router"]["assignment"]["candidate_share"] == 0.3


def test_every_command_that_the_readme_names_is_there(project: Path) -> None:
    named = set(re.findall(r"^signalgraph (\w+)", (project / "README.md").read_text(), re.MULTILINE))
    assert named <= set(COMMANDS)
    assert {"doctor", "preflight", "up", "models", "config"} <= named
