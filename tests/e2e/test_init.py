"""A project that `init` makes, outside the clone, by its own files and the installed packages alone."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from serve_app.model import load_bundle
from tests.waiting import free_port, wait_for

SIGNALGRAPH = ("-m", "deployments.cli")


@dataclass(frozen=True)
class Project:
    """A folder, and somebody who runs Python in it."""

    folder: Path
    home: Path

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return {**inherited, "HOME": str(self.home), "SIGNALGRAPH_STATE_DIR": str(self.home / "state")}

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def said(self, *arguments: str) -> str:
        done = self.python(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """Made and trained as its README says."""
    home = tmp_path_factory.mktemp("home")
    Project(home, home).said(*SIGNALGRAPH, "init", "desk-a")
    made = Project(home / "desk-a", home)
    assert "models/production: v1.0, sha256:" in made.said("train.py")
    return made


@pytest.fixture(scope="module")
def url(project: Project) -> Iterator[str]:
    """The address of its graph."""
    port, log = free_port(), project.home / "said"
    with log.open("wb") as file:
        up = subprocess.Popen(
            [sys.executable, *SIGNALGRAPH, "up", "serve.yaml", "--port", str(port)],
            cwd=project.folder,
            env=project.environment,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    with up:
        try:
            wait_for(lambda: "ready:" in log.read_text() or up.poll() is not None, 240, log.read_text)
            assert up.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{port}"
        finally:
            project.python(*SIGNALGRAPH, "down")


def test_the_tests_that_it_brings_pass(project: Project) -> None:
    assert "3 passed" in project.said("-m", "pytest", "-q")


def test_the_new_model_may_be_deployed(project: Project) -> None:
    arguments = ("preflight", "models/production", "--config", "serve.yaml", "--data", "bokeh", "--json")
    document = json.loads(project.said(*SIGNALGRAPH, *arguments))
    lines = {check["name"]: check for item in document["items"] for check in item["checks"]}
    assert {name for name, line in lines.items() if line["verdict"] == "fail"} == set()
    assert lines["config"]["finding"] == "serve.yaml serves it as production, topology staged"
    assert "1 of them to this digest" in lines["history"]["finding"]


def test_the_graph_answers_with_the_new_model(project: Project, url: str) -> None:
    bundle = load_bundle(project.folder / "models" / "production")
    asked = json.loads(project.said("ask.py", "MSFT", "--url", url))
    body = project.said("ask.py", "MSFT", "--body")
    posted = httpx2.post(f"{url}/v1/signals", content=body, timeout=30)
    assert posted.status_code == 200, posted.text
    for answer in (asked, posted.json()):
        assert (answer["status"], answer["symbol"], answer["variant"]) == ("ok", "MSFT", "production")
        assert (answer["model_version"], answer["bundle_digest"]) == ("v1.0", bundle.digest)
    assert asked["prediction_probability"] == posted.json()["prediction_probability"]


def test_what_the_graph_refuses_is_a_message(project: Project, url: str) -> None:
    done = project.python("ask.py", "FB", "--url", url)
    assert (done.returncode, done.stderr.startswith("422 unknown_symbol: ")) == (1, True), done.stderr


def test_its_scripts_say_what_is_wrong(project: Project) -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    for arguments, said in (
        (("train.py",), "is there already, and a bundle never changes; choose another --version"),
        (("train.py", "--version", "latest"), "versions are named like v1.0"),
        (("train.py", "--version", "v1.1", "--data", "none.csv"), "no file of bars"),
        (("ask.py", "TSLA"), "the data has no TSLA"),
        (("ask.py", "MSFT", "--url", nobody), "start it with `signalgraph up serve.yaml`"),
    ):
        done = project.python(*arguments)
        assert done.returncode != 0
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_the_next_version_can_be_taken_back(project: Project) -> None:
    assert "models/production: v1.1, sha256:" in project.said("train.py", "--version", "v1.1")
    said = project.said(*SIGNALGRAPH, "models", "rollback", "--why", "signals less often than expected")
    assert "models/production: v1.1 → v1.0" in said
