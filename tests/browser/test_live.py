"""Somebody looks at the pages while a study goes from the modality to SATUSEHAT: real router, real sandbox."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from interface.dimse.scu import send_paths
from interface.http.auth.first_admin import FILE_NAME
from tests.browser.conftest import Visit
from tests.system.images import make_study
from tests.system.rig import Rig, wait_for

pytestmark = pytest.mark.chromium


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Rig]:
    """Sandbox and router, ready."""
    rig = Rig(tmp_path)
    rig.write_config()
    rig.start_sandbox()
    rig.start_router()
    yield rig
    rig.close()


@pytest.mark.long(seconds=14)
def test_a_study_is_followed_from_its_arrival_to_the_confirmation(
    running: Rig, tmp_path: Path, visit: Callable[..., Visit],
) -> None:
    first_login = running.folder / "data" / FILE_NAME
    name, password = wait_for(lambda: first_login.exists() and first_login.read_text(), 20, "first login").split()
    window = visit(f"http://127.0.0.1:{running.http_port}")
    page = window.log_in(name, password)
    page.locator("#current").fill(password)
    for field in ("#new", "#again"):
        page.locator(field).fill("kuda benar baterai staples")
    page.get_by_role("button", name="Simpan").click()
    expect(page.get_by_text("Semua sudah sampai.")).to_be_visible()

    study = make_study(tmp_path / "s", "ACC5001", 3)
    window.open("/studies")
    report = send_paths("127.0.0.1", running.dicom_port, [image.path for image in study.images], calling="CT1")
    assert report.stored == 3
    # Nobody touches the page: the study appears, and its course ends as it is delivered.
    link = page.locator("#results tbody th a")
    expect(link).to_have_count(1, timeout=20_000)
    link.click()
    expect(page.locator("#live")).to_contain_text("Menunggu", timeout=20_000)
    expect(page.locator("#live")).to_contain_text("Belum ada ServiceRequest di SATUSEHAT")
    expect(page.locator("#live")).to_contain_text("SIMRS")
    running.order(study)
    expect(page.locator("#live .card-head .chip").first).to_have_text("Terkirim", timeout=30_000)
    expect(page.locator("#live .way li.done")).to_have_count(5)
    expect(page.locator("#live")).to_contain_text("Dikonfirmasi satusehat: 3 citra")
    image = page.locator(".thumbs img").first
    expect(image).to_be_visible()
    assert image.evaluate("one => one.decode().then(() => one.naturalWidth)") > 0
