"""What people do on the pages, in a real browser: by mouse, by keyboard, in both languages, themes and window sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from interface.http.auth.first_admin import FILE_NAME, ensure_first_admin
from internal import devices, jobs
from internal.states import State
from tests.browser.conftest import Visit
from tests.browser.stage import uid_of
from tests.contract.http.doors import Doors

pytestmark = pytest.mark.chromium

PAGES = ("/", "/studies", "/waiting", "/held", "/destinations", "/devices", "/settings", "/audit", "/users",
         "/rules", "/rules/test", "/rules/new",
         f"/studies/{uid_of(1)}", f"/studies/{uid_of(4)}", f"/studies/{uid_of(7)}", f"/studies/{uid_of(9)}",
         "/password")


def test_first_login_leads_to_a_new_password_and_to_today(
    tmp_path: Path, visit: Callable[..., Visit],
) -> None:
    doors = Doors(tmp_path / "data")
    try:
        ensure_first_admin(doors.context)
        name, password = (doors.settings.data_dir / FILE_NAME).read_text().split()
        window = visit(doors.url)
        page = window.open("/studies")
        expect(page).to_have_url(re.compile("/login"))
        window.log_in(name, password)
        expect(page.get_by_role("heading", level=1)).to_have_text("Ganti kata sandi")
        page.locator("#current").fill(password)
        page.locator("#new").fill("kuda benar baterai staples")
        page.locator("#again").fill("kuda benar baterai staples")
        page.get_by_role("button", name="Simpan").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Apa yang belum sampai, dan kenapa?")
        expect(page.get_by_text("Semua sudah sampai.")).to_be_visible()
        assert not (doors.settings.data_dir / FILE_NAME).exists()
    finally:
        doors.close()


def test_a_held_study_is_found_and_its_accession_number_corrected(
    hospital: Doors, visit: Callable[..., Visit],
) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    page.get_by_role("link", name="Citra tidak membawa Accession Number").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Tertahan")
    page.get_by_role("rowheader").get_by_role("link", name="JOKO SAPUTRA").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("JOKO SAPUTRA")
    page.get_by_label("Accession number yang benar").fill("ACC9070")
    page.get_by_label("Alasan").first.fill("salah ketik di modalitas")
    page.get_by_role("button", name="Perbaiki dan cari ordernya").click()
    expect(page.get_by_role("status").first).to_contain_text("Accession number diperbaiki")
    with hospital.store.reading() as tx:
        (row,) = jobs.jobs_of(tx, uid_of(7))
        job = jobs.job(tx, row.job_id)
    assert (job.accession, job.state) == ("ACC9070", State.QUEUED)
    (entry,) = hospital.audit("study.accession")
    assert (entry.author, entry.fields["before"], entry.fields["after"]) == ("user:operator", "ACC907", "ACC9070")


def test_a_correction_that_cannot_be_says_why(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open(f"/studies/{uid_of(3)}")
    page.get_by_label("Accession number yang benar").fill("ACC903")
    page.get_by_label("Alasan").first.fill("coba")
    page.get_by_role("button", name="Perbaiki dan cari ordernya").click()
    expect(page.get_by_role("status").first).to_contain_text("ACC903")
    window.trouble.clear()  # the browser notes the 409
    with hospital.store.reading() as tx:
        (row,) = jobs.jobs_of(tx, uid_of(3))
    assert row.state == State.HELD


def test_a_lane_is_paused_and_resumed(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    page.get_by_role("navigation", name="Halaman").get_by_role("link", name="Tujuan").click()
    page.locator("summary", has_text="Jeda").click()
    page.get_by_label("Alasan").fill("perawatan jaringan")
    page.get_by_role("button", name="Jeda satusehat").click()
    expect(page.get_by_role("status").first).to_contain_text("Tujuan dijeda")
    expect(page.locator("main")).to_contain_text("perawatan jaringan")
    with hospital.store.reading() as tx:
        assert jobs.lane(tx, "satusehat").paused_by == "person"
    page.get_by_role("button", name="Lanjutkan").click()
    expect(page.get_by_role("status").first).to_contain_text("Tujuan dilanjutkan")
    with hospital.store.reading() as tx:
        assert jobs.lane(tx, "satusehat").paused_until == 0


def test_a_device_is_admitted(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open("/devices")
    page.get_by_label("Pilih MRI_BARU 192.0.2.44").check()
    expect(page.get_by_text("1 dipilih")).to_be_visible()
    page.get_by_role("button", name="Izinkan").click()
    expect(page.get_by_role("status").first).to_contain_text("Keputusan tentang 1 alat")
    expect(page.get_by_role("row", name="MRI_BARU")).to_contain_text("Diizinkan")
    with hospital.store.reading() as tx:
        assert devices.decisions(tx)[("MRI_BARU", "192.0.2.44")] == "accept"


def test_the_language_is_switched_and_stays(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    expect(page.locator("html")).to_have_attribute("lang", "id")
    page.get_by_role("button", name="English").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What has not arrived, and why?")
    window.open("/held")
    expect(page.get_by_role("heading", level=1)).to_have_text("Held: a person has to decide")
    assert visit(hospital.url, locale="en-GB").open("/login").locator("h1").inner_text() == "Log in"


def test_a_viewer_sees_no_buttons_that_change_anything(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    for path in ("/held", "/destinations", "/devices", f"/studies/{uid_of(3)}"):
        window.open(path)
        assert page.locator("main form[method=post]").locator("button").count() == 0, path


def test_many_at_once_and_everything_of_a_cause(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open("/waiting?reason=timeout&lane=satusehat")
    page.get_by_label("Semua di halaman ini").check()
    expect(page.get_by_text("1 dipilih")).to_be_visible()
    page.get_by_role("button", name="Hentikan").click()
    expect(page.get_by_role("status").first).to_contain_text("1 pengiriman dihentikan")
    with hospital.store.reading() as tx:
        assert [one.state for one in jobs.jobs_of(tx, uid_of(5))] == [State.CANCELLED]


def test_searching_by_name_never_puts_it_into_the_address(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    asked: list[str] = []
    window.context.on("request", lambda request: asked.append(request.url))
    window.open("/studies")
    expect(page.get_by_role("row")).to_have_count(10)
    page.locator("#text").press_sequentially("wibo")
    expect(page.get_by_role("row")).to_have_count(2)
    expect(page.locator("#results")).to_contain_text("AGUS WIBOWO")
    page.locator("#text").fill("nobody")
    expect(page.locator("#results")).to_contain_text("Tidak ada studi yang cocok")
    assert not [url for url in asked if "wibo" in url.lower()]


def test_everything_can_be_reached_by_keyboard_alone(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.open("/login")
    page.keyboard.type("operator")
    page.keyboard.press("Tab")
    page.keyboard.type("correct horse battery")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Apa yang belum sampai, dan kenapa?")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Langsung ke isi")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator("main a").first).to_be_focused()
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile("/(held|waiting)"))
    window.open("/devices")
    page.get_by_label("Pilih MRI_BARU 192.0.2.44").focus()
    page.keyboard.press("Space")
    expect(page.get_by_text("1 dipilih")).to_be_visible()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"


@pytest.mark.long(seconds=8)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_nothing_serious_stands_in_anybodys_way(hospital: Doors, visit: Callable[..., Visit], theme: str) -> None:
    window = visit(hospital.url, color_scheme=theme)
    window.open("/login")
    faults = {"/login": window.faults()}
    page = window.log_in("admin")
    for path in PAGES:
        window.open(path)
        page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true })")
        faults[path] = window.faults()
    assert {path: found for path, found in faults.items() if found} == {}


def test_nobody_scrolls_sideways_on_a_telephone(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url, viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    window.open("/login")
    assert not window.is_wider_than_window()
    page = window.log_in("admin")
    wide = []
    for path in PAGES:
        window.open(path)
        page.evaluate("document.querySelectorAll('main details').forEach(one => { one.open = true })")
        if window.is_wider_than_window():
            wide.append(path)
    assert wide == []
    window.open("/")
    page.locator("summary", has_text="Menu").click()
    page.get_by_role("navigation", name="Menu").get_by_role("link", name="Tertahan").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Tertahan")
