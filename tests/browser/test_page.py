"""The page by itself, over an API in this process: what it says when a key is needed, and when something is missing."""

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from serve_app.api import Front, create_api, hash_key
from serve_app.config import RouterConfig, Topology
from serve_app.dashboard import Sources
from serve_app.documentation import Examples
from serve_app.errors import MonitorUnavailable, ServeAppError
from serve_app.monitor import MonitorState
from serve_app.types import Action, Decision, Reason
from tests.browser.chromium import DESKTOP, Page, chromium
from tests.unit.monitor.answers import decision, router, state, told
from tests.waiting import free_port, wait_for

KEY = "key-of-desk-a"


class Quiet:
    """A graph that nobody has asked anything, whose monitor may be away, and whose candidate is not ready."""

    def __init__(self) -> None:
        self.is_away = False
        self._state: MonitorState = state()
        self._router = router("one")
        self.hears()

    def hears(self, *answers: Decision | ServeAppError) -> None:
        """Let its router tell the monitor."""
        self._state.add(told(answers, by=self._router))

    def begin_again(self) -> None:
        """Lose what the monitor knew."""
        self._state = state()

    def readiness(self) -> dict[str, str | None]:
        return {"production": None, "candidate": "its golden cases have not been reproduced yet"}

    async def decide(self, identify: Any, requests: Any) -> Any:
        raise AssertionError(f"nobody asks: {identify}, {requests}")

    def with_fallback(self, refused: Any) -> Any:
        raise AssertionError(f"nobody asks: {refused}")

    def feature_list(self, symbol: str) -> Any:
        raise AssertionError(f"nobody asks: {symbol}")

    async def monitor(self) -> dict[str, Any]:
        if self.is_away:
            raise MonitorUnavailable("the monitor does not answer; try again")
        seen: dict[str, Any] = {"rolling_accuracy": {}, "outcomes": {}, "alerts": [], "events": []}
        return {**self._state.snapshot(), **seen, "latest": self._state.tape.latest()}

    async def chart(self, symbol: str) -> dict[str, Any]:
        return self._state.tape.chart(symbol)

    async def stages(self) -> dict[str, Any]:
        return {"router": {"running": 1, "replicas": 2, "status": "UPDATING"}, "models": {}}


@pytest.fixture(scope="module")
def quiet() -> Quiet:
    return Quiet()


@pytest.fixture(scope="module")
def url(quiet: Quiet) -> Iterator[str]:
    front = Front(
        service=quiet,
        config=RouterConfig(),
        examples=Examples({}, {}, {}),
        record=lambda _: None,
        monitor=quiet.monitor,
        api_key_hashes=(hash_key(KEY),),
        dashboard=Sources(Topology.FUSED, quiet.monitor, quiet.chart, quiet.stages, quiet.readiness),
    )
    port = free_port()
    server = uvicorn.Server(uvicorn.Config(create_api(front), port=port, log_level="warning", lifespan="off"))
    thread = threading.Thread(target=asyncio.run, args=(server.serve(),))
    thread.start()
    wait_for(lambda: server.started, 30, lambda: "the API does not start")
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    with chromium(DESKTOP) as opened:
        opened.open(f"{url}/dashboard/")
        yield opened


def test_a_key_is_asked_for_and_used(page: Page) -> None:
    page.shows("#state", "A key is needed")
    page.write("#api-key", "a wrong key")
    page.click("#ask-key button")
    page.has("dialog[open]")  # and asked for again
    assert page.complaints()
    page.write("#api-key", KEY)
    wait_for(lambda: page.complaints() != [], 30, lambda: "the page has not tried again")
    assert page.value("#api-key") == KEY  # whoever types slowly is not disturbed
    page.click("#ask-key button")
    page.shows("#state", "Not ready")
    assert all("401" in complaint for complaint in page.complaints())


def test_why_a_variant_may_not_serve_is_seen(page: Page) -> None:
    page.shows("#stages", "its golden cases have not been reproduced yet")
    page.shows("#stages", "1 of 2 replicas (updating)")


def test_what_is_not_known_is_said_and_not_left_blank(page: Page) -> None:
    page.shows("#variants", "Nothing has been asked yet.")
    page.shows("#features", "No verdict yet")
    page.shows("#evidence", "No evidence: it needs a journal")
    page.shows("#in-force", "The configuration is in force.")
    assert page.text("#controls") == ""  # buttons that nothing could follow on


def test_a_monitor_that_is_away_is_said_until_it_is_back(quiet: Quiet, page: Page) -> None:
    quiet.is_away = True
    page.shows("#trouble", "the monitor does not answer")
    quiet.is_away = False
    page.has("#trouble[hidden]")


def test_what_goes_wrong_is_counted_while_nothing_is_decided(quiet: Quiet, page: Page) -> None:
    for n in (1, 2):
        quiet.hears(ServeAppError("a defect"))
        page.shows("#stages", f"errors so far: {n}")


def test_an_overdue_position_that_no_model_decided_on_is_shown_as_sold(quiet: Quiet, page: Page) -> None:
    quiet.hears(decision(reason=Reason.DEADLINE, action=Action.SELL))
    page.shows("#latest", "SELL (deadline)")


def test_the_version_of_a_variant_is_the_one_that_answers(quiet: Quiet, page: Page) -> None:
    for version in ("v1.0", "v1.1", "v1.0"):
        quiet.hears(decision(model_version=version))
        page.shows("#stages", f"model · production {version}")
        page.shows("#variants", f"version {version}")


def test_no_rate_is_made_up_when_the_monitor_begins_again(quiet: Quiet, page: Page) -> None:
    quiet.hears(*(decision() for _ in range(1_000)))
    page.shows("#variants", "1,00")
    quiet.begin_again()
    quiet.hears(decision())
    page.shows("#variants", "decisions 1\n")
    assert "-" not in page.text("#stages")
