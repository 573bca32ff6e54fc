"""Visits of pages that fail where a request left this machine or the console was not clean."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from internal.users import Role
from tests.browser.stage import fill
from tests.contract.http.doors import PASSWORD, Doors

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

AXE = Path(__file__).resolve().parents[1] / "vendor" / "axe-4.14.1.min.js"
#: What a person has to notice; the lesser ones are advice.
_SERIOUS = ("serious", "critical")


class Visit:
    """One person's window; `trouble` is what went wrong unseen."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.page: Page = context.new_page()
        self.trouble: list[str] = []
        self.page.set_default_timeout(15_000)
        self.page.on("console", lambda message: self._heard(message.type, message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        context.on("request", lambda request: self._asked(request.url))

    def _heard(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.trouble.append(text)

    def _asked(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and not url.startswith(self.url):
            self.trouble.append(f"a request left: {urlsplit(url).netloc}")

    def open(self, path: str) -> Page:
        """Go to a page."""
        self.page.goto(self.url + path)
        return self.page

    def log_in(self, name: str, password: str = PASSWORD) -> Page:
        """Fill in the login form."""
        page = self.open("/login")
        page.locator("#name").fill(name)
        page.locator("#word").fill(password)
        page.locator("form[action='/login'] button").click()
        page.wait_for_url(lambda url: not url.endswith("/login"))
        return page

    def faults(self) -> list[str]:
        """Return what axe-core finds that is serious."""
        # Evaluated by the debugger, which the pages' own policy does not concern.
        self.page.evaluate(AXE.read_text(encoding="utf-8"))
        found: dict[str, Any] = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [f"{one['id']}: {node['target']} {node.get('failureSummary', '')}" for one in found["violations"]
                if one["impact"] in _SERIOUS for node in one["nodes"][:3]]

    def is_wider_than_window(self) -> bool:
        """Return whether a person would have to scroll sideways."""
        # A telephone zooms out where a page is too wide: its innerWidth grows with the page and tells nothing.
        size = self.page.viewport_size
        assert size is not None
        return int(self.page.evaluate("document.documentElement.scrollWidth")) > size["width"]


@pytest.fixture
def visit(chromium: Browser) -> Iterator[Callable[..., Visit]]:
    """Open a window for somebody; at the end nothing may have gone wrong unseen."""
    visits: list[Visit] = []

    def begin(url: str, **options: Any) -> Visit:
        settings = {"locale": "id-ID", "viewport": {"width": 1280, "height": 900}, **options}
        visits.append(Visit(chromium.new_context(**settings), url))
        return visits[-1]

    yield begin
    trouble = [one for each in visits for one in each.trouble]
    for one in visits:
        one.context.close()
    assert trouble == []


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    """A web role over an index with a study in each state, and accounts of each role."""
    doors = Doors(tmp_path_factory.mktemp("hospital"))
    for role in Role:
        doors.add_user(str(role), role)
    fill(doors.store)
    yield doors
    doors.close()
