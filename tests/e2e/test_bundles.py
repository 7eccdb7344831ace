"""The graph refuses to start on what it must not serve, and says why."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e.conftest import ROOT, serve_run
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
    # Either it was refused before anything started, or it was cleared away.
    assert "starting" not in up.stdout or "nothing is left" in up.stdout
    return up.stderr


def config_on_a_changed_bundle(config: str, spoilt: str, folder: Path) -> Path:
    """Write a configuration on a bundle of which one byte of one file was changed."""
    bundle = folder / "v1.0"
    shutil.copytree(ROOT / "models/v1.0", bundle)
    content = bytearray((bundle / spoilt).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / spoilt).write_bytes(content)
    path = folder / "config.yaml"
    path.write_text((ROOT / config).read_text().replace("models/production", str(bundle)))
    return path


@pytest.mark.parametrize("spoilt", ["golden.npz", "model.safetensors"])
def test_up_refuses_a_bundle_with_a_changed_byte(spoilt: str, tmp_path: Path) -> None:
    config = config_on_a_changed_bundle("configs/local.yaml", spoilt, tmp_path)
    said = refused(config, tmp_path)
    assert f"{tmp_path / 'v1.0' / spoilt} was changed since the bundle was built" in said


def test_plain_serve_run_does_not_start_on_it_either(tmp_path: Path) -> None:
    config = config_on_a_changed_bundle("configs/fused.yaml", "scaler.json", tmp_path)
    with (
        pytest.raises(AssertionError, match=r"scaler\.json was changed since the bundle was built"),
        serve_run(str(config)),
    ):
        pytest.fail("the graph became ready")


def test_the_cluster_configuration_does_not_start_without_keys(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "configs/cluster.yaml").read_text())
    # Keys are asked for before anything listens; loopback keeps the test to itself all the same.
    document["http_options"]["host"] = "127.0.0.1"
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(document))
    assert "SIGNALGRAPH_API_KEYS is empty" in refused(tmp_path / "config.yaml", tmp_path)
