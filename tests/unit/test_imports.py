"""What an import costs, each in a process of its own."""

import subprocess
import sys

import pytest

from tests.factories import ROOT

HEAVY = {"ray", "torch", "pandas", "sklearn"}
TORCH_FREE = [
    "api",
    "cli",
    "client",
    "config",
    "control",
    "documentation",
    "errors",
    "evidence",
    "guard",
    "journal",
    "model",
    "monitor",
    "parity",
    "pipeline",
    "preprocess",
    "router",
    "schemas",
    "service",
    "strategy",
    "types",
]


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a statement imports."""
    code = f"{statement}\nimport sys\nprint(*({HEAVY!r} & set(sys.modules)))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(said.split())


@pytest.mark.parametrize("statement", ["import serve_app", "import deployments", "import deployments.cli"])
def test_the_packages_and_the_command_line_import_nothing_heavy(statement: str) -> None:
    assert loaded_by(statement) == set()


def test_everything_that_answers_requests_does_without_torch_ray_and_pandas() -> None:
    assert loaded_by("\n".join(f"import serve_app.{name}" for name in TORCH_FREE)) == set()


def test_torch_comes_with_the_networks_that_it_runs_and_not_with_the_model_stage() -> None:
    assert loaded_by("import serve_app.model.stage") == set()
    assert "torch" in loaded_by("import serve_app.model.predictors.network")


def test_the_batcher_does_without_ray() -> None:
    assert loaded_by("import deployments.batching") == set()
