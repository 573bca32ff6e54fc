"""`make screenshots`: pictures of the pages for README, taken from a hospital of invented patients.

Needs Debian's Chromium. Changes when README shows another page.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from bench.pages import PASSWORD, served

HERE = Path(__file__).resolve().parent
STUDIES, DAYS = 600, 4
_ARGUMENTS = ["--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"]
#: File: path of the page, width, height, theme.
PICTURES = {
    "today": ("/", 1280, 1080, "light"), "today-dark": ("/", 1280, 1080, "dark"),
    "study": ("/held", 1280, 900, "light"), "waiting": ("/waiting", 1280, 900, "light"),
    "phone": ("/", 360, 760, "light"),
}


def take(browser: Browser, url: str, name: str) -> None:
    """Log in, open one page and write its picture."""
    path, width, height, theme = PICTURES[name]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if theme == "dark" else "light",
        locale="id-ID", device_scale_factor=1.5)
    page = context.new_page()
    page.goto(f"{url}/login")
    page.locator("#name").fill("bench")
    page.locator("#word").fill(PASSWORD)
    page.locator("form[action='/login'] button").click()
    page.wait_for_url(f"{url}/")
    _open(page, url, path, name)
    page.screenshot(path=HERE / f"screenshot-{name}.png", animations="disabled")
    context.close()


def _open(page: Page, url: str, path: str, name: str) -> None:
    page.goto(url + path)
    if name == "study":
        page.locator("tbody th a").first.click()
        page.wait_for_selector(".way")
    page.evaluate("document.fonts.ready")


def main() -> int:
    """Take every picture."""
    with tempfile.TemporaryDirectory(prefix="screenshots-") as folder, \
            served(Path(folder), STUDIES, DAYS) as hospital, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_ARGUMENTS)
        for name in PICTURES:
            take(browser, hospital.url, name)
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
