"""What people do on the pages, in a real browser: by mouse, by keyboard, in both languages, themes and window sizes."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from playwright.sync_api import expect

from interface.http.auth.first_admin import FILE_NAME, ensure_first_admin
from internal import corrections, devices, jobs
from internal.states import State
from tests.browser.conftest import Visit
from tests.browser.stage import receive, uid_of
from tests.contract.http.doors import Doors

pytestmark = pytest.mark.chromium


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


def test_many_studies_of_a_search_take_one_order(hospital: Doors, visit: Callable[..., Visit]) -> None:
    receive(hospital.store, 30, modality="XA")
    receive(hospital.store, 31, modality="XA")
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open("/studies?modality=XA")
    expect(page.locator("#results tbody tr")).to_have_count(2)
    page.get_by_label("Semua di halaman ini").check()
    expect(page.get_by_text("2 dipilih")).to_be_visible()
    page.get_by_role("button", name="Kirim sekarang").click()
    expect(page.get_by_role("status").first).to_contain_text("2 studi dikirim tanpa menunggu")
    expect(page.locator("#results tbody tr")).to_have_count(2)  # the search is still the same
    with hospital.store.reading() as tx:
        asked = tx.rows("SELECT settle_requested FROM study WHERE study_uid IN (?, ?)", (uid_of(30), uid_of(31)))
    assert asked == [(1,), (1,)]


def test_what_was_picked_is_not_swept_away_by_news(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open("/studies")
    box = page.get_by_label("Pilih AGUS WIBOWO")
    box.check()
    with page.expect_response(lambda reply: reply.request.method == "POST") as answered:
        page.evaluate("document.body.dispatchEvent(new CustomEvent('news'))")
    answered.value.finished()
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(box).to_be_checked()


def test_accession_orders_and_patients_are_never_changed_for_many(
    hospital: Doors, visit: Callable[..., Visit],
) -> None:
    window = visit(hospital.url)
    page = window.log_in("admin")
    offered = set()
    for path in ("/studies", "/waiting", "/held", "/held?reason=several-orders&lane=satusehat"):
        window.open(path)
        assert page.locator(".bulk").count() == 1, path
        offered |= set(page.locator("main form:has(.bulk) [name=verb]").evaluate_all("all => all.map(o => o.value)"))
        assert page.locator("main form:has(.bulk) input:not([type=hidden], [type=checkbox])").count() == 0, path
    assert offered == {"retry", "send-now", "urgent", "resend", "cancel"}


def test_both_sides_of_another_patient_stand_side_by_side(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    window.open(f"/studies/{uid_of(4)}")
    expect(page.get_by_role("row", name="Nama")).to_contain_text("DEWI UTAMI")
    expect(page.get_by_role("row", name="Nama")).to_contain_text("Dewi Utomo")
    expect(page.get_by_role("row", name="Nama")).to_contain_text("berbeda")


def test_the_receipt_is_a_page_that_people_can_read(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    window.open(f"/studies/{uid_of(1)}")
    page.get_by_role("link", name="Tanda terima").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Tanda terima: BUDI SANTOSO")
    expect(page.locator("main")).to_contain_text("Tersimpan di sana: 3")
    expect(page.locator("tbody tr")).to_have_count(3)
    with hospital.store.reading() as tx:
        (row,) = jobs.jobs_of(tx, uid_of(1))
    reply = hospital.logged_in("viewer").get(f"/studies/{uid_of(2)}/jobs/{row.job_id}/receipt")
    assert reply.status_code == 404  # of another study


def test_what_was_changed_is_shown_and_brought_back(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("admin")
    window.open("/settings")
    expect(page.get_by_role("row", name="ACC99")).to_contain_text("user:ani")
    page.get_by_role("button", name="revisi 2").click()
    page.get_by_role("button", name="Kembalikan 1").click()
    expect(page.get_by_role("status").first).to_contain_text("Ini berlaku lagi.")
    expect(page.locator("tbody tr").first).to_contain_text("mengembalikan revisi 1")
    with hospital.store.reading() as tx:
        assert corrections.aliases(tx)["ACC99"] == "ACC990"
    (entry,) = hospital.audit("settings.rollback")
    assert (entry.author, entry.subject) == ("user:admin", "alias/ACC99")


def test_a_refusal_is_said_in_the_readers_language(hospital: Doors, visit: Callable[..., Visit]) -> None:
    window = visit(hospital.url)
    page = window.log_in("viewer")
    window.open("/studies/1.2.3")
    expect(page.locator("main")).to_contain_text("Studi ini belum pernah diterima.")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", level=1)).to_be_visible()
    window.open("/studies/1.2.3")
    expect(page.locator("main")).to_contain_text("No such study has been received.")
    window.trouble.clear()  # the browser notes each 404
