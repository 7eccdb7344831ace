"""A release from the split to the rollback, with the commands, on a graph behind HAProxy."""

from collections.abc import Iterator

import httpx2
import pytest
from click.testing import CliRunner

from deployments.cli import main
from serve_app.types import Bars
from tests.e2e.clients import asking
from tests.e2e.conftest import serve_run
from tests.factories import every_form, window
from tests.replicas import RUNS, kill
from tests.sizes import size
from tests.waiting import wait_for

KEY = "control-key"
ROUTER = "signals:router"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serve_run("configs/releases.yaml", haproxy=True, SIGNALGRAPH_CONTROL_KEY=KEY) as url:
        yield url


def said(url: str, *command: str, key: str = KEY, fails: bool = False) -> str:
    result = CliRunner().invoke(main, ["release", *command, "--url", url], env={"SIGNALGRAPH_CONTROL_KEY": key})
    assert (result.exit_code != 0) is fails, result.output
    return result.output


def version(url: str, symbol: str, bars: dict[str, Bars]) -> tuple[str, str]:
    path, body = every_form(symbol, window(bars[symbol]))["columns"]
    answer = httpx2.post(url + path, json=body, timeout=30).json()
    assert answer["status"] == "ok"
    return answer["variant"], answer["model_version"]


def test_the_whole_story_by_commands(url: str) -> None:
    because = ("--who", "ada", "--why", "a test")
    assert "epoch 1: production v1.0, candidate v1.1 with 0% of the symbols" in said(url, "show")
    assert "4 symbols would move" in said(url, "preview", "--share", "1")
    assert "with 0% of the symbols, IBM pinned to candidate" in said(
        url, "split", "--pin", "IBM", "candidate", *because
    )
    assert "with 100% of the symbols" in said(url, "split", "--share", "1", "--no-pins", *because)
    assert "epoch 4: production v1.1, candidate v1.0 with 0% of the symbols" in said(url, "promote", *because)
    assert "epoch 5: production v1.0" in said(url, "rollback", *because)
    history = said(url, "history").splitlines()
    assert [line.split()[3] for line in history[1:]] == ["seed", "split", "split", "promote", "rollback"]
    assert all("ada" in line and "a test" in line for line in history[2:])


def test_whoever_changes_a_release_meets_it_in_the_next_answer_everywhere_within_two_seconds(
    url: str, bars: dict[str, Bars]
) -> None:
    said(url, "split", "--share", "1", "--why", "a test")
    wait_for(lambda: {version(url, "AAPL", bars) for _ in range(20)} == {("candidate", "v1.1")}, 2, lambda: "too slow")
    said(url, "rollback", "--why", "a test")
    wait_for(lambda: {version(url, "AAPL", bars) for _ in range(20)} == {("production", "v1.0")}, 2, lambda: "too slow")


@pytest.mark.parametrize(
    ("command", "key", "message"),
    [
        (("rollback", "--why", "a test"), KEY, "409 release_refused: nothing to roll back"),
        (("promote", "--why", "a test"), "another", "401 unauthorized: changing a release needs the control key"),
        (("split", "--why", "a test"), KEY, "say what shall change"),
    ],
)
def test_what_cannot_be_is_a_message_and_exit_code(url: str, command: tuple[str, ...], key: str, message: str) -> None:
    assert message in said(url, *command, key=key, fails=True)


def test_a_graph_that_does_not_run_is_a_message() -> None:
    assert "is the graph running?" in said("http://127.0.0.1:9", "show", fails=True)


def test_what_was_answered_is_in_the_journal_though_routers_are_killed(url: str, bars: dict[str, Bars]) -> None:
    with asking(url, bars) as clients:
        for _ in range(size("routers that are killed under load")):
            clients.wait_for_more()
            kill(RUNS[url], ROUTER)
    clients.check_others()
    # A proxy may have asked twice: decided in another time, and otherwise alike.
    missing = {answer["decision_id"]: {**answer, "timings_ms": None} for answer in clients.answers}
    assert len(missing) == len(clients.answers)

    def all_there() -> bool:
        with httpx2.Client(timeout=30) as client:
            for one in list(missing):
                kept = client.get(f"{url}/v1/decisions/{one}")
                if kept.status_code == 200:
                    assert missing.pop(one).items() <= {**kept.json(), "timings_ms": None}.items()
        return not missing

    wait_for(all_there, 30, lambda: f"{len(missing)} of {len(clients.answers)} answers are not in the journal")
