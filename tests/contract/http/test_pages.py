"""Forms of the pages at a real port: each order does what the command line does, and is in the audit trail."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator

import pytest
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from internal import corrections, decisions, devices, jobs, sessions, set_aside, users
from internal.decisions import Kind, KnownOrder
from internal.devices import Caller, learn
from internal.identity import Person
from internal.model import Job
from internal.states import NotYet, State
from internal.users import Role
from tests.browser.stage import end, fill, receive, uid_of
from tests.contract.http.doors import Doors, Visitor, now_ms
from tests.system.rig import wait_for


@pytest.fixture
def hospital(doors: Doors) -> Doors:
    """A web role over a study in each state."""
    fill(doors.store)
    return doors


@pytest.fixture
def operator(hospital: Doors) -> Visitor:
    return hospital.logged_in("operator")


def job_of(hospital: Doors, number: int) -> Job:
    with hospital.store.reading() as tx:
        (row,) = jobs.jobs_of(tx, uid_of(number))
        return jobs.job(tx, row.job_id)


def ended(who: Visitor, progress: str, back: str) -> str:
    """Return what a task's progress shows once it has ended and leads back."""
    def looked() -> str:
        text = who.get(f"{progress}/live").text
        return text if f'href="{back}"' in text else ""

    return str(wait_for(looked, 30, f"the end of {progress}"))


def press(hospital: Doors, who: Visitor, number: int, verb: str) -> str:
    """Press a button of a study's delivery; return where it leads."""
    job = job_of(hospital, number)
    reply = who.post(f"/studies/{uid_of(number)}/jobs/{job.job_id}", {"verb": verb})
    assert reply.status_code == 303, reply.text
    return reply.headers["location"]


def test_a_study_that_nobody_sent_is_not_sent_on(hospital: Doors, operator: Visitor) -> None:
    assert operator.post("/studies/1.2.3.4/send-now").status_code == 404
    assert hospital.audit("study.send-now") == []


@pytest.mark.parametrize(("number", "verb", "state"), [
    (2, "retry", State.QUEUED), (3, "retry", State.QUEUED), (3, "cancel", State.CANCELLED),
    (5, "urgent", State.QUEUED), (1, "resend", State.QUEUED), (6, "cancel", State.CANCELLED),
])
def test_a_button_moves_the_delivery(hospital: Doors, operator: Visitor, number: int, verb: str, state: State) -> None:
    before = job_of(hospital, number)
    assert press(hospital, operator, number, verb) == f"/studies/{uid_of(number)}?done={verb}&n=1"
    assert job_of(hospital, number).state is state
    (entry,) = hospital.audit(f"study.{verb}")
    assert (entry.author, entry.study_uid) == ("user:operator", uid_of(number))
    assert (entry.fields["before"]["state"], entry.fields["after"]["state"]) == (before.state, state)


def test_what_cannot_be_done_changes_nothing_and_is_said(hospital: Doors, operator: Visitor) -> None:
    assert "done=nothing" in press(hospital, operator, 1, "cancel")
    assert job_of(hospital, 1).state is State.DONE
    other = f"/studies/{uid_of(1)}/jobs/{job_of(hospital, 2).job_id}"
    assert operator.post(other, {"verb": "retry"}).status_code == 404
    assert operator.post(f"/studies/{uid_of(1)}/jobs/{job_of(hospital, 1).job_id}", {"verb": "x"}).status_code == 404
    assert hospital.audit("study.x") == []


def test_send_now_settles_a_study_that_is_still_coming(hospital: Doors, operator: Visitor) -> None:
    assert operator.post(f"/studies/{uid_of(9)}/send-now").status_code == 303
    with hospital.store.reading() as tx:
        assert tx.value("SELECT settle_requested FROM study WHERE study_uid = ?", (uid_of(9),)) == 1


def test_same_patient_and_discard_and_back(hospital: Doors, operator: Visitor) -> None:
    study = f"/studies/{uid_of(4)}"
    reply = operator.post(f"{study}/jobs/{job_of(hospital, 4).job_id}/same-patient", {"reason": "KTP diperiksa"})
    assert reply.headers["location"].endswith("?done=same-patient&n=1")
    assert job_of(hospital, 4).state is State.QUEUED
    assert operator.post(f"{study}/discard", {"reason": "uji"}).status_code == 409  # it is on its way
    press(hospital, operator, 4, "cancel")
    assert operator.post(f"{study}/discard", {"reason": ""}).status_code == 409
    assert operator.post(f"{study}/discard", {"reason": "citra uji"}).status_code == 303
    with hospital.store.reading() as tx:
        assert decisions.find_decision(tx, Kind.DISCARD, uid_of(4)) is not None
    assert operator.post(f"{study}/undo-discard").status_code == 303
    with hospital.store.reading() as tx:
        assert decisions.find_decision(tx, Kind.DISCARD, uid_of(4)) is None


def test_taking_back_needs_a_second_person(hospital: Doors, operator: Visitor) -> None:
    path = f"/studies/{uid_of(1)}/jobs/{job_of(hospital, 1).job_id}"
    asked = operator.post(f"{path}/withdraw", {"reason": "order salah"})
    code = re.search(r'class="figure mono">([0-9a-f]{8})<', asked.text)
    assert code is not None
    assert operator.post(f"{path}/withdraw-confirm", {"code": code[1]}).status_code == 409
    second = hospital.logged_in("admin")
    assert second.post(f"{path}/withdraw-confirm", {"code": code[1]}).status_code == 303
    with hospital.store.reading() as tx:
        assert decisions.is_withdrawn(tx, uid_of(1), "satusehat")
    assert code[1] not in str([entry.fields for entry in hospital.audit()])


def test_everything_of_a_cause_goes_in_the_background(hospital: Doors, operator: Visitor) -> None:
    for number in range(20, 80):
        receive(hospital.store, number, images=1)
        end(hospital.store, number, NotYet("no-order", "none"))
    reply = operator.post("/waiting", {"verb": "cancel", "everything": "1", "chosen": "1", "reason": "no-order",
                                       "lane": "satusehat"})
    progress = reply.headers["location"]
    assert progress.startswith("/progress/")
    text = ended(operator, progress, "/waiting")
    assert "61 / 61" in text
    with hospital.store.reading() as tx:
        left = tx.value("SELECT COUNT(*) FROM job WHERE state = 'waiting' AND reason_code = 'no-order'")
    assert left == 0
    assert hospital.logged_in("admin").get(progress).status_code == 404  # somebody else's


def test_some_are_picked_and_none_is_said(hospital: Doors, operator: Visitor) -> None:
    assert "done=none-picked" in operator.post("/held", {"verb": "retry"}).headers["location"]
    ids = [job_of(hospital, number).job_id for number in (3, 4)]
    reply = operator.request("POST", "/held", data=[("csrf", operator.csrf()), ("verb", "retry"),
                                                    *(("job", str(one)) for one in ids)])
    assert reply.headers["location"] == "/held?done=retry&n=2"
    assert {job_of(hospital, number).state for number in (3, 4)} == {State.QUEUED}
    assert operator.post("/held", {"verb": "accession", "job": "1"}).status_code == 404


@pytest.fixture
def device() -> Iterator[int]:
    """A device that answers C-ECHO on loopback."""
    entity = AE(ae_title="CT1")
    entity.require_called_aet = True
    entity.add_supported_context(Verification)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    yield server.socket.getsockname()[1]
    server.shutdown()


def test_a_device_is_asked_whether_it_answers(hospital: Doors, operator: Visitor, device: int) -> None:
    with hospital.store.transaction() as tx:
        learn(tx, [Caller("CT1", "127.0.0.1", now_ms())])
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    for port, words in ((device, "Alat menjawab."), (closed, "Alat tidak dapat dihubungi.")):
        reply = operator.post("/devices/echo", {"device": "CT1@127.0.0.1", "port": str(port)})
        assert words in ended(operator, reply.headers["location"], "/devices")
    assert operator.post("/devices/echo", {"device": "CT1@192.0.2.99", "port": "104"}).status_code == 404


@pytest.mark.parametrize(("verb", "verdict"), [
    ("admit", "accept"), ("hold", "hold"), ("refuse", "refuse"), ("forget", None),
])
def test_a_device_is_decided_on(hospital: Doors, operator: Visitor, verb: str, verdict: str | None) -> None:
    operator.post("/devices", {"verb": "refuse", "device": "MRI_BARU@192.0.2.44"})
    reply = operator.post("/devices", {"verb": verb, "device": "MRI_BARU@192.0.2.44"})
    assert reply.headers["location"] == "/devices?done=device&n=1"
    with hospital.store.reading() as tx:
        assert devices.decisions(tx).get(("MRI_BARU", "192.0.2.44")) == verdict
    assert hospital.audit(f"device.{verb}")[0].author == "user:operator"


def test_a_destination_is_tested_stage_by_stage(open_doors: Callable[..., Doors]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = free.getsockname()[1]
    doors = open_doors(satusehat__url=f"http://127.0.0.1:{closed}", satusehat__organization_id="100",
                       satusehat__client_key="client", satusehat__secret_key="secret-word")
    doors.add_user("operator", Role.OPERATOR)
    operator = doors.logged_in("operator")
    reply = operator.post("/destinations/satusehat/test")
    text = ended(operator, reply.headers["location"], "/destinations")
    assert "127.0.0.1 = 127.0.0.1" in text and "tidak tersambung (ConnectionRefusedError)" in text
    assert "Periksa jam komputer, proxy dan firewall" in text and "check this computer" not in text
    assert "secret-word" not in text and operator.post("/destinations/other/test").status_code == 404


def test_an_order_is_chosen_among_those_that_may_be_meant(hospital: Doors, operator: Visitor) -> None:
    order = KnownOrder("SIMRS", "9", "ACC930", Person("WIBOWO^AGUS", mrn="RM903"), "US", "20261120")
    with hospital.store.transaction() as tx:
        corrections.order_came(tx, order, now_ms())
    study = f"/studies/{uid_of(3)}"
    text = operator.get(study).text
    assert re.search(r'<input type="radio" name="choice" value="ACC930">', text)
    job_id = job_of(hospital, 3).job_id
    reply = operator.post(f"{study}/jobs/{job_id}/accession", {"choice": "ACC930", "reason": "angka tertukar"})
    assert reply.headers["location"] == f"{study}?done=accession&n=1"
    assert (job_of(hospital, 3).accession, job_of(hospital, 3).state) == ("ACC930", State.QUEUED)


@pytest.mark.parametrize("path", ["/studies/orders", "/held", "/waiting"])
@pytest.mark.parametrize("verb", ["accession", "same-patient", "discard", "withdraw", "choose", ""])
def test_what_needs_a_look_at_each_study_is_no_order_for_many(
    hospital: Doors, operator: Visitor, path: str, verb: str,
) -> None:
    form = {"verb": verb, "study": uid_of(3), "job": str(job_of(hospital, 3).job_id), "reason": "x", "new": "ACC1"}
    assert operator.post(path, form).status_code == 404
    assert job_of(hospital, 3).state is State.HELD


@pytest.mark.parametrize(("verb", "states"), [
    ("retry", {State.QUEUED, State.DONE}), ("resend", {State.QUEUED, State.WAITING, State.HELD}),
    ("cancel", {State.CANCELLED, State.DONE}),
    ("urgent", {State.QUEUED, State.HELD, State.DONE}),
])
def test_many_studies_take_one_order(hospital: Doors, operator: Visitor, verb: str, states: set[State]) -> None:
    picked = [("study", uid_of(number)) for number in (1, 2, 3)] + [("study", "1.2.3.4")]
    reply = operator.request("POST", "/studies/orders", data=[("csrf", operator.csrf()), ("verb", verb), *picked])
    assert reply.status_code == 200, reply.text
    assert {job_of(hospital, number).state for number in (1, 2, 3)} == states
    (entry,) = hospital.audit(f"study.{verb}")
    assert entry.fields["studies"] == [uid for _, uid in picked] and entry.fields["moved"] > 0


def test_the_navigation_counts_what_the_first_page_says_is_waiting(operator: Visitor) -> None:
    text = operator.get("/").text
    badges = dict(re.findall(r'href="/(waiting|held)".*?<span class="count \w+">(\d+)</span>', text))
    assert badges == {"waiting": "2", "held": "3"}, "the one in the queue is not counted"


def test_the_audit_trail_speaks_in_words(hospital: Doors, operator: Visitor) -> None:
    operator.get("/held")
    admin = hospital.logged_in("admin")
    for language, words in (("id", "Melihat daftar pasien"), ("en", "Looked at a list of patients")):
        text = admin.get("/audit?action=patient", headers={"Accept-Language": language}).text
        assert re.search(rf'<td[^>]*>{words}<span[^>]*>patient\.list</span>', text)


def test_a_name_that_is_no_study_is_not_kept_for_an_order(operator: Visitor) -> None:
    assert operator.post("/studies/orders", {"verb": "retry", "study": "1" * 65}).status_code == 422


def test_no_study_picked_is_said(operator: Visitor) -> None:
    assert "Tidak ada yang dipilih" in operator.post("/studies/orders", {"verb": "retry"}).text


def test_an_admin_adds_users_and_keys_and_sees_secrets_once(hospital: Doors) -> None:
    admin = hospital.logged_in("admin")
    made = admin.post("/users", {"name": "Ani", "role": "viewer"})
    password = re.search(r'class="secret[^>]*>([^<]+)<', made.text)
    assert password is not None
    assert hospital.logged_in("ani", password[1]).get(
        "/", headers={"Accept": "text/html"}).headers["location"] == "/password"
    assert admin.post("/users/ani", {"verb": "role", "role": "operator"}).status_code == 303
    assert admin.post("/users/ani", {"verb": "disable"}).status_code == 303
    with hospital.store.reading() as tx:
        found = users.get_user(tx, "ani")
    assert (found.role, found.disabled_at is None) == (Role.OPERATOR, False)
    key = admin.post("/users/keys", {"name": "SIMRS", "right": "view", "days": "30"})
    assert 'class="secret' in key.text
    with hospital.store.reading() as tx:
        (kept,) = sessions.list_keys(tx)
    assert admin.post(f"/users/keys/{kept.key_id}/revoke").status_code == 303
    assert admin.post("/users", {"name": "x", "role": "king"}).status_code == 422


@pytest.mark.parametrize("back", ["https://elsewhere.example/", "//elsewhere.example", "/held"])
def test_preferences_lead_back_and_nowhere_else(doors: Doors, back: str) -> None:
    reply = doors.visitor().post("/preferences", {"language": "en", "theme": "dark", "back": back})
    assert reply.headers["location"] == (back if back == "/held" else "/")
    assert {cookie.name: cookie.value for cookie in reply.cookies} == {"language": "en", "theme": "dark"}


@pytest.mark.parametrize("path", ["/waiting?after=x", "/held?after=1-x"])
def test_a_cursor_that_is_none_is_refused(operator: Visitor, path: str) -> None:
    assert operator.get(path).status_code == 422


def test_a_notice_is_one_of_ours_only(operator: Visitor) -> None:
    text = operator.get("/held?done=retry&n=3", headers={"Accept-Language": "en"}).text
    assert "3 deliveries are tried again." in text
    for query in ("done=<script>", "done=retry&n=<script>", "done=retry&n=99999999999999999999"):
        assert "<script>" not in operator.get(f"/held?{query}").text.partition("<main")[2]


def test_settings_never_show_a_secret(open_doors: Callable[..., Doors]) -> None:
    doors = open_doors(satusehat__client_key="very-secret-key", satusehat__secret_key="even-more-secret")
    doors.add_user("admin", Role.ADMIN)
    text = doors.logged_in("admin").get("/settings").text
    assert "client_key" in text and "very-secret-key" not in text and "even-more-secret" not in text


DAY_MS = 86_400_000


def put_aside(hospital: Doors, *files: tuple[str, str, int], reason: str = "this file has no DICM mark") -> None:
    """Note files by name, study and age in ms."""
    with hospital.store.transaction() as tx:
        for name, study_uid, age_ms in files:
            set_aside.note_bad(tx, name, reason, now_ms() - age_ms, study_uid=study_uid)


def test_a_study_says_which_of_its_images_were_set_aside(hospital: Doors, operator: Visitor) -> None:
    study = f"/studies/{uid_of(3)}"
    assert "disisihkan" not in operator.get(study).text
    put_aside(hospital, ("f-1", uid_of(3), 0))
    for path in (study, f"{study}/live"):
        assert "1 citra studi ini tidak terbaca dan disisihkan." in operator.get(path).text
    put_aside(hospital, ("f-2", uid_of(3), 0))
    english = operator.get(study, headers={"Accept-Language": "en"}).text
    assert "2 images of this study are unreadable and were set aside." in english
    with hospital.store.transaction() as tx:
        set_aside.accept_missing(tx, uid_of(3), now_ms())
    assert "disisihkan" not in operator.get(study).text


def rows_aside(text: str) -> list[tuple[str, str, str]]:
    """File, what stands for the study and reason of each row, as the page's HTML has them."""
    section = text.partition('id="set-aside"')[2]
    row = r'<code>([^<]*)</code></th>.*?<td data-label="[^"]*">(.*?)</td>\s*<td lang="en">([^<]*)</td>'
    return [(file, study.strip(), reason) for file, study, reason in re.findall(row, section, re.DOTALL)]


def test_files_that_were_set_aside_are_where_people_decide(doors: Doors) -> None:
    """With the study where it is known; newest first, without those that somebody has accepted, so many and no more."""
    viewer = doors.logged_in("viewer")
    assert 'id="set-aside"' not in viewer.get("/held").text
    assert "disisihkan" not in viewer.get("/").text
    receive(doors.store, 3)
    put_aside(doors, ("f-old", uid_of(3), 2 * DAY_MS), ("f-new", "", 0), reason="no <b>mark</b> & \"no\" data set")
    put_aside(doors, ("f-unseen", "2.25.77", DAY_MS), ("f-accepted", "2.25.78", 0))
    with doors.store.transaction() as tx:
        assert set_aside.accept_missing(tx, "2.25.78", now_ms()) == 1
    text = viewer.get("/held").text
    escaped = "no &lt;b&gt;mark&lt;/b&gt; &amp; &#34;no&#34; data set"
    assert rows_aside(text) == [
        ("f-new", "tidak diketahui", escaped),
        ("f-unseen", '<span class="mono">2.25.77</span>', "this file has no DICM mark"),
        ("f-old", f'<a href="/studies/{uid_of(3)}">AGUS WIBOWO</a>', escaped)]
    assert "3 berkas disisihkan" in text and "Hanya yang terbaru" not in text
    assert [entry.study_uid for entry in doors.audit("patient.view")] == [uid_of(3)]
    for path in ("/waiting", "/held?reason=no-order&lane=satusehat"):
        assert 'id="set-aside"' not in viewer.get(path).text
    for path in ("/", "/today/live"):
        text = viewer.get(path).text
        assert "3 berkas dari 7 hari terakhir tidak dapat dibaca dan disisihkan." in text
        assert 'href="/held#set-aside"' in text
    english = {"Accept-Language": "en"}
    assert "3 files of the last 7 days cannot be read and were set aside." in viewer.get("/", headers=english).text
    put_aside(doors, *((f"f-{number}", "", 8 * DAY_MS) for number in range(60)))
    text = viewer.get("/held", headers=english).text
    assert "63 files were set aside" in text and "The newest are shown" in text
    assert len(rows_aside(text)) == 50
    assert "3 files of the last 7 days" in viewer.get("/", headers=english).text
