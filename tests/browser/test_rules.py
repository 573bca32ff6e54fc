"""Rules in a real browser: one is written, a file is dropped, and both sides of the header are looked at."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import expect
from pydicom.data import get_testdata_file

from tests.browser.conftest import Visit
from tests.contract.http.doors import Doors

pytestmark = pytest.mark.chromium

LINES = 'when = Modality = CT\ndo =\n    set PatientComments = "N"\nsend_to = satusehat'


def test_a_rule_is_written_and_a_file_dropped_to_see_what_it_does(
    hospital: Doors, visit: Callable[..., Visit],
) -> None:
    window = visit(hospital.url)
    page = window.log_in("admin")
    page.get_by_role("link", name="Aturan").first.click()
    page.get_by_role("link", name="Aturan baru").click()
    page.get_by_role("textbox", name="Nama", exact=True).fill("malam")
    page.get_by_label("Baris-baris").fill(LINES)
    page.get_by_role("button", name="Simpan").click()
    expect(page.get_by_role("status").first).to_contain_text("Aturan diubah")
    expect(page.get_by_role("row", name="malam")).to_contain_text("Modality = CT")
    page.get_by_role("link", name="Coba aturan").click()
    page.get_by_label("Jatuhkan berkas DICOM").set_input_files(str(get_testdata_file("CT_small.dcm")))
    page.get_by_role("button", name="Coba").first.click()
    tried = page.locator("#tried")
    expect(tried).to_contain_text("Akan dikirim ke satusehat")
    expect(tried.get_by_role("row", name="malam")).to_contain_text("ya")
    expect(tried.get_by_role("row", name="PatientComments").first).to_contain_text("N")
    assert window.faults() == []
    page.set_viewport_size({"width": 360, "height": 740})
    assert not window.is_wider_than_window()
    window.open("/rule/malam")
    assert not window.is_wider_than_window()
    assert window.faults() == []
    assert hospital.audit("settings.change")[0].subject == "rule/malam"


def test_what_is_refused_while_files_are_dropped_is_said(
    hospital: Doors, visit: Callable[..., Visit],
) -> None:
    window = visit(hospital.url)
    page = window.log_in("operator")
    window.open("/rules/test")
    many = [{"name": f"{number}.dcm", "mimeType": "application/dicom", "buffer": b"DICM"} for number in range(21)]
    page.get_by_label("Jatuhkan berkas DICOM").set_input_files(many)
    page.get_by_role("button", name="Coba").first.click()
    expect(page.locator("#notices")).to_contain_text("Ada isian yang salah.")
    page.get_by_label("Jatuhkan berkas DICOM").set_input_files(str(get_testdata_file("CT_small.dcm")))
    page.get_by_role("button", name="Coba").first.click()
    expect(page.locator("#tried")).to_contain_text("Akan dikirim ke satusehat")
    expect(page.locator("#notices")).to_be_empty()
    window.trouble.clear()  # the browser notes the 422
