"""The pages of the rules: written and brought back with their history, tried with files, studies and whole days."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import requests
from pydicom import dcmread
from pydicom.data import get_testdata_file

from interface.http.pages.rule_trial import MAX_UPLOAD_BYTES
from interface.roles import SystemClock
from internal import intake, rule_rows
from internal.indexer import Indexer
from internal.model import Arrival
from internal.rules import Routing
from internal.users import Role
from tests.contract.http.doors import Doors, Visitor, now_ms
from tests.contract.http.test_pages import ended

LINES = ("when = called = DICOMRELAY\ndo =\n    set PatientID = EthnicGroup else hold\n    upper PatientName\n"
         "send_to = pacs")
IN_FILE = """
[router]
default_send_to = archive
[folder:pacs]
path = pacs
[folder:archive]
path = archive
[rule:from-file]
when = Modality = US
keep = yes
"""
ENGLISH = {"Accept-Language": "en"}


@pytest.fixture
def router(open_doors: Callable[..., Doors]) -> Doors:
    """A web role with two folders to send to, and one rule in router.conf."""
    doors = open_doors(configuration=IN_FILE)
    for role in Role:
        doors.add_user(str(role), role)
    return doors


@pytest.fixture
def admin(router: Doors) -> Visitor:
    return router.with_session("admin")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A CT image whose Ethnic Group holds a number."""
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.EthnicGroup = "99-17"
    dataset.save_as(tmp_path / "one.dcm")
    return tmp_path / "one.dcm"


def write(admin: Visitor, lines: str = LINES, name: str = "relay") -> None:
    assert admin.post("/rules/new", {"name": name, "lines": lines, "position": "3"}).status_code == 303


def drop(visitor: Visitor, *paths: Path, **form: str) -> str:
    """Drop files onto the page as htmx sends them; return what it shows."""
    reply = visitor.request("POST", "/rules/test", data=form, headers={"X-CSRF-Token": visitor.csrf(), **ENGLISH},
                            files=[("files", (path.name, path.read_bytes())) for path in paths])
    assert reply.status_code == 200, reply.text
    return plain(reply.text)


def plain(html: str) -> str:
    """Return what a person reads."""
    return " ".join(re.sub(r"<[^>]+>", " ", html).replace("&#34;", '"').split())


def test_a_rule_is_written_changed_taken_out_and_brought_back(router: Doors, admin: Visitor) -> None:
    write(admin)
    shown = plain(admin.get("/rules", headers=ENGLISH).text)
    assert shown.index("from-file router.conf") < shown.index("relay made here")
    assert "All other studies archive" in shown
    assert admin.post("/rule/relay", {"lines": LINES.replace("pacs", "archive")}).status_code == 303
    assert admin.post("/rule/relay/remove").status_code == 303
    assert "was taken out" in admin.get("/rule/relay", headers=ENGLISH).text
    assert admin.post("/rule/relay/rollback", {"revision": "1"}).status_code == 303
    with router.store.reading() as tx:
        (text,) = rule_rows.catalogue_texts(tx)
    assert text.entries == {"when": "called = DICOMRELAY", "send_to": "pacs",
                            "do": "\nset PatientID = EthnicGroup else hold\nupper PatientName"}
    page = admin.get("/rule/relay", headers=ENGLISH).text
    assert LINES in page.replace("&#34;", '"') and "revision 1 again" in page
    done = [(one.action, one.author) for one in router.audit() if one.action.startswith("settings")]
    assert done == [("settings.rollback", "user:admin"), *[("settings.change", "user:admin")] * 3]


def test_a_mistake_is_named_with_its_line_and_changes_nothing(router: Doors, admin: Visitor) -> None:
    write(admin)
    wrong = LINES.replace("EthnicGroup", "EthnicGroop").replace("pacs", "pcas")
    reply = admin.post("/rule/relay", {"lines": wrong}, headers=ENGLISH)
    assert reply.status_code == 409
    shown = plain(reply.text)
    assert "did you mean EthnicGroup?" in shown and "did you mean pacs?" in shown and "line 2" in shown
    assert "Nothing was changed" in shown and "EthnicGroop" in reply.text, "what was typed stays"
    for lines in ("[rule:other]\nkeep = yes", "keep yes", "keep = yes\nkeep = no"):
        assert admin.post("/rules/new", {"name": "other", "lines": lines}).status_code == 409
    for name in ("relay", "from-file", "Not A Name", ""):
        assert admin.post("/rules/new", {"name": name, "lines": "keep = yes"}).status_code == 409, name
    with router.store.reading() as tx:
        (text,) = rule_rows.catalogue_texts(tx)
    assert text.entries["send_to"] == "pacs"


def test_a_rule_that_was_taken_out_and_is_written_wrongly_is_still_out(admin: Visitor) -> None:
    write(admin)
    assert admin.post("/rule/relay/remove").status_code == 303
    reply = admin.post("/rule/relay", {"lines": "send_to = pcas", "position": "7"}, headers=ENGLISH)
    assert reply.status_code == 409 and 'value="7"' in reply.text
    assert "was taken out" in reply.text and "Take the rule out" not in reply.text


def test_a_rule_that_stands_is_not_written_anew(admin: Visitor) -> None:
    write(admin)
    reply = admin.post("/rules/new", {"name": "relay", "lines": "keep = yes"}, headers={"Accept-Language": "id"})
    assert reply.status_code == 409 and "Aturan relay sudah ada: ubah di halamannya." in reply.text


def test_who_may_only_try_changes_nothing(router: Doors, admin: Visitor) -> None:
    write(admin)
    operator, viewer = router.with_session("operator"), router.with_session("viewer")
    assert 'href="/rule/relay"' not in operator.get("/rules").text
    assert operator.get("/rule/relay").status_code == 403
    assert operator.post("/rule/relay/remove").status_code == 403
    assert viewer.get("/rules").status_code == viewer.get("/rules/test").status_code == 403
    assert admin.get("/rule/from-file").status_code == 404


def test_files_are_dropped_and_both_sides_shown(router: Doors, admin: Visitor, image: Path, tmp_path: Path) -> None:
    write(admin)
    (tmp_path / "letter.txt").write_text("no image")
    operator = router.with_session("operator")
    shown = drop(operator, image, tmp_path / "letter.txt", called="DICOMRELAY")
    assert "Would go to pacs (1 image) by the rules relay" in shown
    assert "from-file no false Modality = US is: CT" in shown
    assert "relay yes true called = DICOMRELAY is: DICOMRELAY" in shown
    assert "(0010,0020) PatientID 1CT1 99-17" in shown
    assert "(0010,0010) PatientName" in shown and "(0008,0060) Modality" not in shown
    assert "letter.txt no DICM prefix" in shown
    shown = drop(operator, image, called="OTHER", everything="1")
    assert "Would go to archive (1 image) by default_send_to: no rule sends it" in shown
    assert "(0008,0060) Modality CT CT" in shown
    (tmp_path / "empty").write_bytes(b"")
    assert "Choose at least one file." in drop(operator, tmp_path / "empty")


def test_what_a_rule_would_hold_is_said(router: Doors, admin: Visitor, tmp_path: Path) -> None:
    write(admin)
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.save_as(tmp_path / "two.dcm")
    assert "Would be held: PatientID: EthnicGroup is empty, and the rule says hold" in drop(
        admin, tmp_path / "two.dcm", called="DICOMRELAY")


def test_an_upload_that_is_too_large_or_without_token_is_refused(router: Doors, image: Path) -> None:
    operator = router.with_session("operator")
    reply = operator.request("POST", "/rules/test", files=[("files", ("one.dcm", image.read_bytes()))])
    assert reply.status_code == 403
    asked = operator.session.prepare_request(requests.Request("POST", f"{router.url}/rules/test", data=b"x", headers={
        "X-CSRF-Token": operator.csrf()}))
    asked.headers["Content-Length"] = str(MAX_UPLOAD_BYTES + 1)
    assert operator.session.send(asked, timeout=20).status_code == 413


def test_a_stored_study_is_tried_and_a_day_is_run_dry(router: Doors, admin: Visitor, image: Path) -> None:
    write(admin)
    uid = receive(router, image)
    reply = admin.post("/rules/test/study", {"study": uid}, headers=ENGLISH)
    shown = plain(reply.text)
    assert "Would go to pacs (1 image) by the rules relay" in shown
    assert "(0010,0020) PatientID 1CT1 99-17" in shown
    (entry,) = router.audit("patient.view")
    assert (entry.study_uid, entry.subject) == (uid, "rules")
    assert "No such study" in admin.post("/rules/test/study", {"study": "1.2.3"}, headers=ENGLISH).text
    progress = admin.post("/rules/dry-run", {"since": "2020-01-01"}, headers=ENGLISH).headers["location"]
    shown = plain(ended(admin, progress, "/rules/test"))
    assert f"{uid} would go to pacs (1); went to nowhere" in shown
    assert "1 study would go elsewhere than it went. 0 studies would be held." in shown
    assert admin.post("/rule/relay", {"lines": f"{LINES}\nhold = look first"}).status_code == 303
    progress = admin.post("/rules/dry-run", {"since": "2020-01-01"}, headers=ENGLISH).headers["location"]
    shown = plain(ended(admin, progress, "/rules/test"))
    assert "1 study would be held." in shown and "Would be held: rule relay: look first" in shown
    assert admin.post("/rules/dry-run", {"since": "someday"}).status_code == 422


def test_a_study_that_goes_nowhere_is_listed(router: Doors, admin: Visitor, image: Path) -> None:
    uid = receive(router, image)
    with router.store.transaction() as tx:
        rule_rows.note_routing(tx, uid, "r1", Routing({}, ("from-file",), (), "from-file"), now_ms())
    shown = plain(admin.get("/rules", headers=ENGLISH).text)
    assert "Studies that go nowhere" in shown and uid in shown and "kept by the rule from-file" in shown


def receive(router: Doors, path: Path) -> str:
    """Let an image come in and be indexed; return its study's UID."""
    writer = router.spool.writer("0")
    with path.open("rb") as file:
        intake.accept(writer, file, Arrival(now_ms(), "", "CT1", "DICOMRELAY", "10.0.0.9:4711", "dimse"), 10_000_000)
    writer.close()
    while Indexer(router.spool, router.store, SystemClock()).run_once().more:
        pass
    return str(dcmread(path).StudyInstanceUID)
