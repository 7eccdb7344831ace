"""Debian's Chromium, driven as a person would use it, and what it says of a page."""

import json
import os
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from tests.programs import needed
from tests.waiting import wait_for

AXE = "axe-core@4.14.1"
PATIENCE = ("--fetch-timeout=30000", "--fetch-retries=1", "--fetch-retry-mintimeout=1000")
DESKTOP, PHONE = (1400, 900), (390, 844)
SCREENSHOTS = Path(os.environ.get("SIGNALGRAPH_SCREENSHOTS", Path(__file__).parents[2] / ".screenshots"))
SERIOUS = ("serious", "critical")
"""What axe-core calls a problem that keeps people out."""


@contextmanager
def chromium(size: tuple[int, int]) -> Iterator["Page"]:
    """Start one, without a window; skip where there is none."""
    browser, driver = str(needed("chromium")), str(needed("chromedriver"))
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    started = webdriver.Chrome(options=options, service=Service(driver))
    try:
        width, height = size
        # A window of Chromium is never narrower than 500 pixels; a phone's screen is.
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == PHONE}
        started.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        yield Page(started)
    finally:
        started.quit()


class Page:
    """What somebody sees and does."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser = browser

    def open(self, url: str) -> None:
        self.browser.get(url)

    def text(self, selector: str) -> str:
        return "\n".join(one.text for one in self.browser.find_elements(By.CSS_SELECTOR, selector))

    def attribute(self, selector: str, name: str) -> str:
        return self.browser.find_element(By.CSS_SELECTOR, selector).get_attribute(name) or ""

    def value(self, selector: str) -> str:
        """Return what is in a field."""
        return str(self.browser.find_element(By.CSS_SELECTOR, selector).get_property("value"))

    def shows(self, selector: str, text: str) -> None:
        """Wait until an element has a text in it."""
        wait_for(lambda: text in self.text(selector), 30, lambda: f"{selector}: {self.text(selector)!r}, not {text!r}")

    def has(self, selector: str, count: int = 1) -> None:
        """Wait until there are so many elements."""

        def found() -> int:
            return len(self.browser.find_elements(By.CSS_SELECTOR, selector))

        wait_for(lambda: found() == count, 30, lambda: f"{found()} of {selector}")

    def click(self, selector: str) -> None:
        self.browser.find_element(By.CSS_SELECTOR, selector).click()

    def write(self, selector: str, text: str) -> None:
        field = self.browser.find_element(By.CSS_SELECTOR, selector)
        field.clear()
        field.send_keys(text)

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        self.browser.switch_to.active_element.send_keys(*keys)

    def tab_to(self, identity: str) -> None:
        """Go on by the keyboard until an element has the focus."""
        for _ in range(200):
            self.press(Keys.TAB)
            if self.browser.switch_to.active_element.get_attribute("id") == identity:
                return
        raise AssertionError(f"the keyboard does not reach #{identity}")

    def complaints(self) -> list[str]:
        """Return the errors of the console since the last call."""
        logged: list[dict[str, str]] = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [one["message"] for one in logged if one["level"] == "SEVERE"]

    def audit(self, axe: str) -> list[str]:
        """Return the serious problems that axe-core finds, with the elements that have them."""
        self.browser.execute_script(axe)
        found: dict[str, Any] = self.browser.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run(document).then(done);"
        )
        assert found["passes"], "axe-core has looked at nothing"
        return [
            f"{one['id']}: {one['help']}: {json.dumps([node['target'] for node in one['nodes']])}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
        ]

    def overflows(self) -> bool:
        """Whether the page is wider than the screen."""
        wider: bool = self.browser.execute_script(
            "return document.documentElement.scrollWidth > document.documentElement.clientWidth"
        )
        return wider

    def screenshot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        SCREENSHOTS.mkdir(exist_ok=True)
        shot = self.browser.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, **self._whole()})
        (SCREENSHOTS / f"{name}.png").write_bytes(b64decode(shot["data"]))

    def _whole(self) -> dict[str, Any]:
        size = self.browser.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        return {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}


def axe_core(folder: Path) -> str:
    """Return the script of axe-core, from npm; skip where there is none."""
    pack = [str(needed("npm")), "pack", AXE, *PATIENCE]
    packed = subprocess.run(pack, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    if packed.returncode:
        pytest.skip(f"needs a registry of npm, for axe-core: {packed.stderr[-200:]}")
    (archive,) = folder.glob("axe-core-*.tgz")
    shutil.unpack_archive(archive, folder, filter="data")
    return (folder / "package/axe.min.js").read_text()
