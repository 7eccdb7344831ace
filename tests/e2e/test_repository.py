"""Promotions, rollbacks and new bundles, by processes that are killed at random moments."""

import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from serve_app.model import load_bundle, write_bundle
from serve_app.model.atomic import LOCK
from serve_app.model.repository import LINK, Repository
from tests.e2e.conftest import ROOT
from tests.sizes import size

KEPT = ("v1.0", "v1.1", "v1.2")

MOVERS = """
import random, sys
from dataclasses import replace
from datetime import UTC, datetime
from serve_app.model import load_bundle, write_bundle
from serve_app.errors import RepositoryError
from serve_app.model.repository import Repository

models, chance, name = Repository(sys.argv[1]), random.Random(sys.argv[2]), sys.argv[2]
original = load_bundle(models.folder / "v1.0")

def write(version):
    config = original.config.model_copy(update={"model_version": version})
    write_bundle(replace(original, path=models.folder / version, config=config))

print("ready", flush=True)
sys.stdin.readline()
for i in range(10**6):
    why, now = f"{name}.{i}", datetime.now(UTC)
    action = chance.choice(["v1.0", "v1.1", "v1.2", "rollback", "rollback", "write"])
    try:
        if action == "write":
            why = f"v{name}{i:04}.0"
            write(why)
        elif action == "rollback":
            models.rollback(who="ada", why=why, now=now)
        else:
            models.promote(action, who="ada", why=why, now=now)
    except RepositoryError as error:
        assert "nothing that was in production before" in str(error), error
        continue
    print(why, flush=True)
"""
"""Moves and writes until it is killed, and says the name of each when it is done."""


def start(folder: Path, name: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", MOVERS, str(folder), name],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_pair(folder: Path, number: int) -> dict[str, subprocess.Popen[str]]:
    return {name: start(folder, name) for name in (f"{number}1", f"{number}2")}


def go(mover: subprocess.Popen[str]) -> None:
    assert mover.stdout is not None
    assert mover.stdin is not None
    assert mover.stdout.readline() == "ready\n"
    mover.stdin.write("go\n")
    mover.stdin.flush()


def killed_after(mover: subprocess.Popen[str], seconds: float) -> list[str]:
    """Let it work for that long, kill it, and return what it said was done."""
    time.sleep(seconds)
    mover.kill()
    said, complaint = mover.communicate(timeout=30)
    assert mover.returncode == -signal.SIGKILL, complaint
    # A line without an end was being said when it was killed.
    return [line.strip() for line in said.splitlines(keepends=True) if line.endswith("\n")]


def check_moves(models: Repository, name: str, said: list[str]) -> int:
    """Hold the history against what one mover said was done; return how many it had no time to say."""
    moves = [why for why in said if not why.startswith("v")]
    recorded = [entry.why for entry in models.history() if entry.why.startswith(f"{name}.")]
    assert recorded[: len(moves)] == moves
    assert len(recorded) - len(moves) in (0, 1)
    return len(recorded) - len(moves)


def check_written(models: Repository, said: list[str]) -> None:
    """What was said to be written is there, all that is there is whole; then make room."""
    versions = models.versions()
    assert not [version for version in versions if version.reason]
    written = {version.name for version in versions} - set(KEPT)
    assert {why for why in said if why.startswith("v")} <= written
    for version in written:
        shutil.rmtree(models.folder / version)


@pytest.fixture
def models(tmp_path: Path) -> Repository:
    """v1.0, v1.1 and v1.2, the first of them in production."""
    folder = tmp_path / "models"
    for shipped in ("v1.0", "v1.1"):
        shutil.copytree(ROOT / "models" / shipped, folder / shipped)
    bundle = load_bundle(folder / "v1.0")
    config = bundle.config.model_copy(update={"model_version": "v1.2"})
    write_bundle(replace(bundle, path=folder / "v1.2", config=config))
    (folder / LINK).symlink_to("v1.0")
    return Repository(folder)


def killed_round(models: Repository, movers: dict[str, subprocess.Popen[str]], chance: random.Random) -> Counter[str]:
    """Let two movers race, kill both, check what they left, and count what they were killed in."""
    for mover in movers.values():
        go(mover)
    said = {name: killed_after(movers[name], chance.uniform(0, 0.15)) for name in movers}
    assert load_bundle(models.folder / LINK).version in KEPT
    left = {path.name for path in models.folder.glob(".*")} - {LOCK}
    assert len(left) <= 1, left  # of whoever held the lock last
    tally = Counter(
        {
            "done": sum(map(len, said.values())),
            "recorded, not said": sum(check_moves(models, name, done) for name, done in said.items()),
            "recorded, link not moved": int(models.interrupted() is not None),
            "left unfinished": len(left),
        }
    )
    check_written(models, [why for done in said.values() for why in done])
    return tally


def killed_inside(tally: Counter[str]) -> int:
    """Return how many kills hit a move or a write that had begun and was not acknowledged."""
    return tally["recorded, not said"] + tally["left unfinished"]


def test_a_repository_survives_kill_9_at_random_moments(models: Repository) -> None:
    chance = random.Random(7)  # noqa: S311
    rounds = size("rounds of promote and rollback with kill -9")
    tally: Counter[str] = Counter()
    movers = start_pair(models.folder, 0)
    # About one round in five ends inside a move: go on until one did, or until that can no longer be chance.
    for number in range(1, 20 * rounds + 1):
        following = start_pair(models.folder, number)  # they import while the others work
        tally += killed_round(models, movers, chance)
        movers = following
        if number >= rounds and killed_inside(tally):
            break
    for mover in movers.values():
        mover.kill()
        mover.communicate()
    print(f"{number} rounds: {dict(tally)}; {len(models.history())} entries")
    assert tally["done"] > number
    assert killed_inside(tally)
    models.promote("v1.1", who="ada", why="the end", now=datetime.now(UTC))
    assert load_bundle(models.folder / LINK).version == "v1.1"
    assert [path.name for path in models.folder.glob(".*")] == [LOCK]
    assert len({entry.why for entry in models.history()}) == len(models.history())
