"""Every page that is served: nothing serious for axe-core in either theme, no sideways scroll on a telephone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from interface.http.app import create_app, guarded_routes
from internal import jobs
from tests.browser.conftest import Visit
from tests.browser.stage import uid_of
from tests.contract.http.doors import Doors

pytestmark = pytest.mark.chromium

#: Path of a route: the addresses under which it is looked at.
PAGES: dict[str, tuple[str, ...]] = {
    "/login": (), "/": ("/",), "/studies": ("/studies", "/studies?modality=ZZ"), "/password": ("/password",),
    "/studies/{study_uid}": tuple(f"/studies/{uid_of(number)}" for number in (1, 2, 4, 7, 9)),
    "/studies/{study_uid}/jobs/{job_id}/receipt": (f"/studies/{uid_of(1)}/jobs/{{job}}/receipt",),
    "/waiting": ("/waiting", "/waiting?reason=no-order&lane=satusehat"), "/held": ("/held",),
    "/destinations": ("/destinations",), "/devices": ("/devices",),
    "/devices/echo": ("/devices/echo?device=MRI_BARU@192.0.2.44",), "/settings": ("/settings",),
    "/audit": ("/audit",), "/users": ("/users",),
    "/rules": ("/rules",), "/rules/new": ("/rules/new",), "/rules/test": ("/rules/test",), "/rule/{name}": (),
    "/docs": ("/docs",), "/api/docs": (), "/api": (), "/progress/{task_id}": (),
}  # one function answers the three addresses of the API's page; what answers a form is below
#: Answers that are no pages: pieces of one, files, and the ways to the identity provider and back.
NO_PAGES = {"/today/live", "/studies/{study_uid}/live", "/progress/{task_id}/live", "/static/{name:path}",
            "/api/swagger.json", "/login/oidc", "/login/oidc/callback", "/health/live", "/health/ready"}


def addresses(hospital: Doors) -> Iterator[str]:
    with hospital.store.reading() as tx:
        (row,) = jobs.jobs_of(tx, uid_of(1))
    for paths in PAGES.values():
        yield from (path.replace("{job}", str(row.job_id)) for path in paths)


def opened(window: Visit, path: str) -> None:
    """Show a page with everything unfolded."""
    page = window.open(path)
    if path == "/docs":
        page.locator("#operations-operations-pause_api_v1_lanes__name__pause_post .opblock-summary-control").click()
        page.get_by_role("button", name="Try it out").click()
        expect(page.get_by_label("Request body")).to_be_visible()
    page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true })")


def answers(window: Visit) -> Iterator[str]:
    """Go through the pages that answer a form, and say which one is shown."""
    page = window.page
    window.open("/users")
    page.get_by_label("Nama pengguna").fill("sari")
    page.get_by_role("button", name="Tambah").click()
    expect(page.locator(".secret")).to_be_visible()
    yield "a secret shown once"
    window.open(f"/studies/{uid_of(8)}")
    page.locator("summary", has_text="Tarik dari SATUSEHAT").click()
    page.get_by_label("Alasan").fill("order salah")
    page.get_by_role("button", name="Minta").click()
    expect(page.locator(".figure.mono")).to_be_visible()
    yield "the code for a second person"
    window.open("/settings")
    page.get_by_role("button", name="revisi 2 ACC99").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("ACC99")
    yield "the history of a setting"
    window.open("/devices/echo?device=MRI_BARU@192.0.2.44")
    page.get_by_role("button", name="C-ECHO").click()
    expect(page.locator("progress, .notice").first).to_be_visible()
    yield "the progress of a test"
    window.open("/nowhere")
    yield "nothing found"
    window.trouble.clear()  # the browser notes the 404


def test_each_page_has_its_place_here(hospital: Doors) -> None:
    served = {route.path for route in guarded_routes(create_app(hospital.context))
              if "GET" in route.methods and not route.include_in_schema}
    assert served - NO_PAGES == set(PAGES)


@pytest.mark.long(seconds=25)
@pytest.mark.timeout(180)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_stands_in_anybodys_way(hospital: Doors, visit: Callable[..., Visit], theme: str) -> None:
    window = visit(hospital.url, color_scheme=theme)
    window.open("/login")
    faults = {"/login": window.faults()}
    window.log_in("admin")
    for path in addresses(hospital):
        opened(window, path)
        faults[path] = window.faults()
    if theme == "light":
        for name in answers(window):
            faults[name] = window.faults()
    assert {path: found for path, found in faults.items() if found} == {}


@pytest.mark.long(seconds=12)
def test_nobody_scrolls_sideways_on_a_telephone(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    window.open("/login")
    assert not window.is_wider_than_window()
    page = window.log_in("admin")
    wide = []
    for path in addresses(hospital):
        opened(window, path)
        if window.is_wider_than_window():
            wide.append(path)
    assert wide == []
    window.open("/")
    page.locator("summary", has_text="Menu").click()
    page.get_by_role("navigation", name="Menu").get_by_role("link", name="Tertahan").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Tertahan")
