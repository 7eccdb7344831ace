"""The life of a candidate on real bars: shadowed, reported, ramped, promoted, rolled back, and all of it replayed."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from click.testing import CliRunner

from deployments.cli import main
from serve_app.model import load_bundle
from serve_app.types import Bars
from tests.e2e.conftest import ROOT, serve_run
from tests.factories import every_form, window
from tests.sizes import size
from tests.waiting import wait_for

KEY = "control-key"
SYMBOLS = ("AAPL", "GOOG", "IBM", "MSFT")
PRODUCTION, CANDIDATE = ("production", "v1.0"), ("candidate", "v1.1")
BECAUSE = ("--who", "ada", "--why", "a test")


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('story') / 'journal.db'}"


@pytest.fixture(scope="module")
def url(journal: str) -> Iterator[str]:
    with serve_run("configs/releases.yaml", haproxy=True, journal=journal, SIGNALGRAPH_CONTROL_KEY=KEY) as url:
        yield url


def said(*command: str) -> str:
    result = CliRunner().invoke(main, command, env={"SIGNALGRAPH_CONTROL_KEY": KEY})
    assert result.exit_code == 0, result.output
    return result.output


def ask(url: str, bars: dict[str, Bars], ago: int) -> list[dict[str, Any]]:
    """Ask for every symbol at one bar."""
    requests = [every_form(symbol, window(bars[symbol], ago))["columns"][1] for symbol in SYMBOLS]
    response = httpx2.post(f"{url}/v1/signals:batch", json={"requests": requests}, timeout=60)
    assert response.status_code == 200, response.text
    results: list[dict[str, Any]] = response.json()["results"]
    assert {one["status"] for one in results} == {"ok"}
    return results


def test_the_life_of_a_candidate(url: str, journal: str, bars: dict[str, Bars]) -> None:
    def change(step: str, *more: str) -> str:
        return said("release", step, "--url", url, *BECAUSE, *more)

    n = size("decisions that are replayed") // len(SYMBOLS)
    horizon = load_bundle(ROOT / "models/v1.0").config.label.horizon_bars

    assert "shadow on" in change("shadow", "on")
    decided = [one for ago in range(n + horizon, horizon, -1) for one in ask(url, bars, ago)]
    assert {one["model_version"] for one in decided} == {"v1.0"}
    # The first answers may be of the router that has not heard of the shadow yet.
    epoch = max(one["epoch"] for one in decided)
    both = [one for one in decided if one["epoch"] == epoch]
    assert len(both) > len(decided) / 2

    report = ("experiment", "report", "v1.0-vs-v1.1", "--journal", journal, "--json")
    wait_for(lambda: json.loads(said(*report))["paired"]["counts"]["scored"] == len(both), 30, lambda: said(*report))
    assert said("outcomes", "label", "--data", "bokeh", "--journal", journal) == f"{len(decided):,} labelled\n"
    found = json.loads(said(*report))
    counts = found["paired"]["counts"]
    assert counts["compared"] == len(both) - counts["pending"]
    assert (counts["missing"], counts["pending"]) == (0, horizon * len(SYMBOLS))
    assert (found["integrity"]["assignment_mismatches"], found["doubts"]) == (0, [])
    assert found == httpx2.get(f"{url}/v1/experiments/v1.0-vs-v1.1", timeout=60).json()

    # By the salt of the configuration, MSFT is the first to move.
    for share, moved in (("0.5", {"MSFT"}), ("1", set(SYMBOLS))):
        assert f"with {float(share):.0%} of the symbols" in change("split", "--share", share)
        answers = settled(url, bars)
        assert served(answers) == {(one, *(CANDIDATE if one in moved else PRODUCTION)) for one in SYMBOLS}
        decided += answers
    assert "production v1.1, candidate v1.0" in change("promote")
    assert served(settled(url, bars)) == {(one, "production", "v1.1") for one in SYMBOLS}
    assert "production v1.0, candidate v1.1" in change("rollback")
    assert served(settled(url, bars)) == {(one, *PRODUCTION) for one in SYMBOLS}

    steps = [line.split()[3] for line in said("release", "history", "--url", url).splitlines()[1:]]
    assert steps == ["seed", "shadow", "split", "split", "promote", "rollback"]
    replay_all(url, [one["decision_id"] for one in decided])


def served(answers: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    """Return by which variant and version each symbol was answered."""
    return {(one["symbol"], one["variant"], one["model_version"]) for one in answers}


def settled(url: str, bars: dict[str, Bars]) -> list[dict[str, Any]]:
    """Ask until both routers answer from the epoch in force; return their answers."""
    epoch = httpx2.get(f"{url}/v1/releases").json()["in_force"]["epoch"]
    found: list[dict[str, Any]] = []

    def everywhere() -> bool:
        found[:] = [one for _ in range(10) for one in ask(url, bars, 0)]
        return {one["epoch"] for one in found} == {epoch}

    wait_for(everywhere, 30, lambda: f"epoch {epoch}: {found}")
    return found


def replay_all(url: str, ids: list[str]) -> None:
    """Every decision computed again has the same features and the same action."""
    with httpx2.Client(timeout=60) as client, ThreadPoolExecutor(4) as pool:
        replays = list(pool.map(lambda i: client.post(f"{url}/v1/decisions/{i}:replay").json(), ids))
    assert len(replays) >= size("decisions that are replayed")
    for replay in replays:
        assert replay["agrees"], replay
        for name in ("window_crc", "action"):
            assert replay["computed"][name] == replay["recorded"][name]
        assert replay["computed"]["probability"] == pytest.approx(replay["recorded"]["probability"], abs=1e-5)


def test_the_page_of_an_experiment(url: str, tmp_path: Path) -> None:
    page = httpx2.get(f"{url}/v1/experiments/v1.0-vs-v1.1", headers={"Accept": "text/html"}, timeout=60).text
    (tmp_path / "page.html").write_text(page)
    assert page.count("</svg>") == 3
    assert "<h1>v1.0-vs-v1.1</h1>" in page
