"""The graph refuses to start on what it must not serve, and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import ROOT
from tests.waiting import free_port


def refused(config: Path, home: Path) -> str:
    """Start a graph that must not start; return what it says."""
    environment = {**os.environ, "HOME": str(home), "SIGNALGRAPH_STATE_DIR": str(home / "state")}
    environment.pop("SIGNALGRAPH_API_KEYS", None)
    up = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "up", str(config), "--port", str(free_port())],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert up.returncode == 1, up.stdout + up.stderr
    assert "nothing is left" in up.stdout
    return up.stderr


@pytest.mark.parametrize(("config", "spoilt"), [("fused", "golden.npz"), ("local", "model.safetensors")])
def test_the_graph_does_not_start_on_a_bundle_with_a_changed_byte(config: str, spoilt: str, tmp_path: Path) -> None:
    bundle = tmp_path / "v1.0"
    shutil.copytree(ROOT / "models/v1.0", bundle)
    content = bytearray((bundle / spoilt).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / spoilt).write_bytes(content)
    text = (ROOT / f"configs/{config}.yaml").read_text().replace("models/production", str(bundle))
    (tmp_path / "config.yaml").write_text(text)
    said = refused(tmp_path / "config.yaml", tmp_path)
    assert f"{bundle / spoilt} was changed since the bundle was built" in said


def test_the_cluster_configuration_does_not_start_without_keys(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())
    # Keys are asked for before anything listens; loopback keeps the test to itself all the same.
    document["http_options"]["host"] = "127.0.0.1"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    assert "SIGNALGRAPH_API_KEYS is empty" in refused(tmp_path / "config.yaml", tmp_path)
