"""The dashboard of a running graph, in a browser: what happens is seen, and what is clicked happens."""

from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
import yaml
from selenium.webdriver.common.keys import Keys

from serve_app.client import signal_body
from serve_app.types import Bars
from tests.browser.chromium import DESKTOP, PHONE, Page, axe_core, chromium
from tests.e2e.conftest import ROOT, serve_run
from tests.factories import window
from tests.waiting import wait_for

KEY = "key-of-the-desk"
FLAT, LONG = {"status": "FLAT"}, {"status": "LONG", "time_in_position_bars": 2}
N = 10
"""Predictions that the rule about accuracy looks at, here."""


class Desk:
    """A running graph and its client."""

    def __init__(self, url: str, bars: dict[str, Bars]) -> None:
        self.url = url
        self._bars = bars

    def ask(self, symbol: str, ago: int = 0, position: dict[str, Any] = FLAT) -> dict[str, Any]:
        body = signal_body(symbol, window(self._bars[symbol], ago), position)
        return self.post("signals", body)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {KEY}"}
        response = httpx2.post(f"{self.url}/v1/{path}", json=body, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        document: dict[str, Any] = response.json()
        return document

    def change(self, step: str, body: dict[str, Any]) -> None:
        """Change the release, and wait until no router answers from the epoch before."""
        epoch = self.post(f"releases:{step}", {"who": "a test", "why": "to see it", **body})["epoch"]
        wait_for(lambda: {self.ask("AAPL")["epoch"] for _ in range(20)} == {epoch}, 10, lambda: f"no epoch {epoch}")

    def in_force(self) -> dict[str, Any]:
        document: dict[str, Any] = httpx2.get(f"{self.url}/v1/releases", timeout=30).json()["in_force"]
        return document


@pytest.fixture(scope="module")
def desk(bars: dict[str, Bars]) -> Iterator[Desk]:
    document = yaml.safe_load((ROOT / "configs/releases.yaml").read_text())
    rules = {"rolling_accuracy": {"window": N}, "resolve_after_s": 1}
    document["applications"][0]["args"]["monitor"] = {"alerts": rules}
    with serve_run(document, SIGNALGRAPH_CONTROL_KEY=KEY) as url:
        yield Desk(url, bars)


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    return axe_core(tmp_path_factory.mktemp("axe"))


@pytest.fixture(scope="module")
def page(desk: Desk) -> Iterator[Page]:
    with chromium(DESKTOP) as opened:
        opened.open(f"{desk.url}/dashboard")
        opened.shows("#state", "Live")
        yield opened


def test_a_decision_is_seen_as_it_comes(desk: Desk, page: Page) -> None:
    made = desk.ask("MSFT")
    page.has(f'#latest tr[data-id="{made["decision_id"]}"]')
    row = page.text(f'#latest tr[data-id="{made["decision_id"]}"]')
    assert all(part in row for part in ("MSFT", "2013-03-01", f"{made['prediction_probability']:.4f}", "production"))
    page.shows("#stages", "2 of 2 replicas")
    page.shows("#variants", "v1.0")


def test_what_was_bought_and_sold_is_marked_in_the_bars(desk: Desk, page: Page) -> None:
    always = {"signal_threshold": 0.0, "exit_threshold": 1.0}
    desk.change("thresholds", {"variant": "production", "thresholds": always})
    assert [desk.ask("IBM", ago, FLAT)["recommended_action"] for ago in (9, 5)] == ["BUY", "BUY"]
    assert desk.ask("IBM", 2, LONG)["recommended_action"] == "SELL"
    page.has('#latest button[aria-label="Show the bars of IBM"]', 3)
    page.click('#latest button[aria-label="Show the bars of IBM"]')
    page.shows("#chart-note", "bars, 3 decisions")
    assert page.attribute("#symbol", "value") == "IBM"
    assert page.attribute("#chart", "aria-label").endswith("bars of IBM; marked: 2 BUY, 1 SELL")


def test_an_alert_is_seen_until_it_is_resolved(desk: Desk, page: Page) -> None:
    page.shows("#firing", "Nothing is wrong.")

    def report(label: Any) -> None:
        made = [desk.ask("GOOG", ago) for ago in range(N)]
        outcomes = [{"decision_id": one["decision_id"], "label": label(one)} for one in made]
        desk.post("outcomes:batch", {"outcomes": outcomes})

    report(lambda one: int(one["prediction_probability"] < 0.5))
    page.shows("#firing", "rolling accuracy (production v1.0) firing")
    report(lambda one: int(one["prediction_probability"] >= 0.5))
    page.shows("#firing", "Nothing is wrong.")
    page.shows("#events", "rolling accuracy (production v1.0) resolved")


def test_a_promotion_is_clicked_and_so_is_the_way_back(desk: Desk, page: Page) -> None:
    page.shows("#in-force", "production v1.0, candidate v1.1")
    before = desk.in_force()["epoch"]
    page.click("#promote")
    page.shows("#confirm-text", "v1.1 becomes production")
    for field, text in (("#who", "ada"), ("#why", "seen in a browser"), ("#control-key", "a wrong key")):
        page.write(field, text)
    assert page.complaints() == []
    page.click("#confirm-yes")
    page.shows("#confirm-error", "needs the control key")
    assert desk.in_force()["epoch"] == before
    assert [one for one in page.complaints() if "401" not in one] == []
    page.write("#control-key", KEY)
    page.click("#confirm-yes")
    page.shows("#in-force", f"Epoch {before + 1}: production v1.1, candidate v1.0")
    entry = desk.in_force()
    assert (entry["step"], entry["who"], entry["why"]) == ("promote", "ada", "seen in a browser")
    page.click("#rollback")
    page.write("#why", "and back")
    page.write("#control-key", KEY)
    page.click("#confirm-yes")
    page.shows("#in-force", f"Epoch {before + 2}: production v1.0")


def test_what_was_confirmed_of_another_release_is_not_done(desk: Desk, page: Page) -> None:
    page.click("#promote")
    desk.change("shadow", {"shadow": True})  # somebody else, meanwhile
    now = desk.in_force()
    page.write("#who", "ada")
    page.write("#why", "seen a while ago")
    page.write("#control-key", KEY)
    page.click("#confirm-yes")
    page.shows("#confirm-error", "is not in force any more")
    page.press(Keys.ESCAPE)
    page.has("dialog[open]", 0)
    assert desk.in_force() == now
    assert [one for one in page.complaints() if "409" not in one] == []


def test_the_keyboard_is_enough(desk: Desk, page: Page) -> None:
    page.open(f"{desk.url}/dashboard")
    page.shows("#in-force", "Epoch")
    page.tab_to("symbol")
    page.tab_to("promote")
    page.press(Keys.ENTER)
    page.shows("#confirm-title", "Promote the candidate")
    page.tab_to("control-key")
    page.press(Keys.ESCAPE)
    page.has("dialog[open]", 0)


@pytest.mark.parametrize(("name", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_everybody_can_read_it(desk: Desk, axe: str, name: str, size: tuple[int, int]) -> None:
    for ago in range(100):
        desk.ask("GOOG", ago)  # for a verdict on drift
    with chromium(size) as page:
        page.open(f"{desk.url}/dashboard")
        page.shows("#features", "RSI_14")
        page.shows("#chart-note", "decisions")
        for theme in ("light", "dark"):
            assert page.attribute("html", "data-theme") == theme
            assert page.audit(axe) == []
            page.screenshot(f"{name}-{theme}")
            page.click("#theme")
        assert not page.overflows()
        assert page.complaints() == []
