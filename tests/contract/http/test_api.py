"""The API over a real port: what it answers, what it changes, once per key, and what the audit trail says of it."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from interface.http.api.feed import Feed
from internal import alerts, events, jobs, withdrawals
from internal.alerts import Condition, Finding
from internal.errors import NotAllowed, Transient
from internal.states import Event, State
from internal.users import Role
from tests.contract.destinations.hospital import Hospital
from tests.contract.http.doors import Doors, Visitor
from tests.contract.store.samples import STUDY, add, instance, settle_study

PATIENT = "RAHASIA^SEKALI"


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doors]:
    started = Doors(tmp_path_factory.mktemp("api"), settings={
        "satusehat.organization_id": "100", "satusehat.client_key": "client", "satusehat.secret_key": "geheim-1234",
        "router.send_to": "satusehat"})
    for role in Role:
        started.add_user(str(role), role)
    yield started
    started.close()


@pytest.fixture(scope="module")
def operator(house: Doors) -> Visitor:
    return house.visitor(key=house.key("operate"))


@pytest.fixture(scope="module")
def admin(house: Doors) -> Visitor:
    return house.visitor(key=house.key("administer"))


@pytest.fixture(scope="module")
def study(house: Doors) -> str:
    add(house.store, instance(1, part="ACC7", patient_name=PATIENT, patient_id="P-77"))
    settle_study(house.store, part="ACC7")
    return STUDY


def job_of(house: Doors, study_uid: str) -> jobs.JobRow:
    with house.store.reading() as tx:
        return jobs.jobs_of(tx, study_uid)[0]


def call(visitor: Visitor, path: str, body: Any = None, **headers: str) -> requests.Response:
    return visitor.request("POST", f"/api/v1{path}", json={} if body is None else body, headers=headers)


def answered(reply: requests.Response, status: int = 200) -> Any:
    assert reply.status_code == status, reply.text
    return reply.json()


# --- looking -------------------------------------------------------------------------------------------------------

def test_a_study_is_found_followed_and_its_receipts_are_shown(house: Doors, operator: Visitor, study: str) -> None:
    found = answered(call(operator, "/studies/search", {"text": "rahasia"}))
    assert [one["study_uid"] for one in found["studies"]] == [study]
    assert answered(operator.get(f"/api/v1/studies/{study}"))["patient_name"] == PATIENT
    images = answered(operator.get(f"/api/v1/studies/{study}/instances"))
    assert [one["held"] for one in images["instances"]] == [True]
    timeline = answered(operator.get(f"/api/v1/studies/{study}/timeline"))
    assert timeline["courses"][0]["steps"][0]["stage"] == "received"
    receipts = answered(operator.get(f"/api/v1/studies/{study}/receipts"))
    assert receipts["jobs"][0]["receipts"][0]["state"] == "due"
    row = job_of(house, study)
    assert answered(operator.get(f"/api/v1/jobs/{row.job_id}"))["study_uid"] == study
    assert answered(operator.get(f"/api/v1/jobs/{row.job_id}/receipts"))["job_id"] == row.job_id
    viewed = {(entry.study_uid, entry.subject) for entry in house.audit("patient.view")}
    assert {(study, what) for what in ("search", "study", "instances", "timeline", "receipts", "job")} <= viewed
    answered(operator.get("/api/v1/jobs"))
    (listed,) = [entry for entry in house.audit("patient") if entry.subject.split()[0] == "jobs"]
    assert study in (listed.study_uid, *listed.fields.get("studies", []))


def test_pages_lead_on_until_the_last(house: Doors, operator: Visitor, study: str) -> None:
    for number in range(5):
        uid = f"1.2.826.0.5.{number}"
        add(house.store, instance(number, study=uid, patient_name="HALAMAN"))
    seen: list[str] = []
    after = ""
    while True:
        page = answered(call(operator, "/studies/search", {"text": "halaman", "limit": 2, "after": after}))
        seen += [one["study_uid"] for one in page["studies"]]
        after = page["after"]
        if not after:
            break
    assert len(seen) == len(set(seen)) == 5
    assert answered(operator.get("/api/v1/jobs?limit=1"))["jobs"][0]["study_uid"] == study


def test_a_table_for_spreadsheets_has_no_formulas(house: Doors, operator: Visitor) -> None:
    uid = "1.2.826.0.7.1"
    add(house.store, instance(1, study=uid, patient_name="=HYPERLINK(\"http://x\")", patient_id="+62812"))
    reply = call(operator, "/studies/export", {"text": "+62812"})
    assert reply.status_code == 200 and reply.headers["content-disposition"].startswith("attachment; filename=")
    rows = list(csv.reader(io.StringIO(reply.content.decode("utf-8-sig"))))
    cells = [cell for row in rows for cell in row]
    assert "'=HYPERLINK(\"http://x\")" in cells and "'+62812" in cells
    assert not [cell for cell in cells if cell[:1] in "=+-@" and cell]
    call(operator, "/studies/export", {"text": "+62812"})
    assert [(entry.study_uid, entry.subject) for entry in house.audit("patient.download")] == [(uid, "export")] * 2


def test_what_is_not_there_and_what_is_wrong_have_one_shape(operator: Visitor) -> None:
    for reply, status, code in (
            (operator.get("/api/v1/studies/1.2.3.4"), 404, "not-found"),
            (operator.get("/api/v1/studies/x"), 422, "invalid"),
            (operator.get("/api/v1/jobs/99999"), 404, "not-found"),
            (operator.get("/api/v1/jobs?state=nonsense"), 422, "invalid"),
            (call(operator, "/studies/search", {"texxt": "x"}), 422, "invalid"),
            (call(operator, "/studies/search", {"text": "a\nb"}), 422, "invalid"),
            (operator.get("/api/v1/events?cursor=abc"), 422, "invalid"),
            (operator.get("/api/v1/users"), 403, "not-allowed")):
        body = answered(reply, status)
        assert body["error"] == code and set(body) == {"error", "message", "next_step", "detail"}
        assert set(body["message"]) == {"id", "en"} and body["message"]["id"]


def test_no_answer_and_no_address_shows_a_secret(admin: Visitor) -> None:
    listed = answered(admin.get("/api/v1/settings"))
    assert {one["value"] for one in listed if one["key"] == "secret_key"} == {"***"}
    assert "geheim-1234" not in json.dumps(listed)


# --- acting --------------------------------------------------------------------------------------------------------

def test_a_key_makes_a_repetition_harmless(house: Doors, operator: Visitor, study: str) -> None:
    row = job_of(house, study)
    first = answered(call(operator, f"/jobs/{row.job_id}/cancel", **{"Idempotency-Key": "once-1"}))
    assert first == {"moved": [{"job_id": row.job_id, "state": "cancelled"}], "refused": []}
    entries = len(house.audit("study.cancel"))
    assert answered(call(operator, f"/jobs/{row.job_id}/cancel", **{"Idempotency-Key": "once-1"})) == first
    assert len(house.audit("study.cancel")) == entries
    other = answered(call(operator, f"/jobs/{row.job_id}/retry", **{"Idempotency-Key": "once-1"}), 422)
    assert other["error"] == "replayed"
    without = answered(call(operator, f"/jobs/{row.job_id}/cancel"))
    assert without["refused"][0]["job_id"] == row.job_id
    assert answered(call(operator, f"/jobs/{row.job_id}/retry"))["moved"][0]["state"] == "queued"


def test_keys_of_others_never_meet(house: Doors, operator: Visitor) -> None:
    other = house.visitor(key=house.key("operate"))
    body = {"sent": "KUNCI", "meant": "SATU"}
    assert answered(call(operator, "/aliases", body, **{"Idempotency-Key": "mine"}))["meant"] == "SATU"
    body["meant"] = "DUA"
    assert answered(call(other, "/aliases", body, **{"Idempotency-Key": "mine"}))["meant"] == "DUA"


def test_the_same_key_at_the_same_moment_makes_one_account(house: Doors) -> None:
    key = house.key("administer")
    statuses: list[int] = []
    start = threading.Barrier(4)

    def add_user() -> None:
        start.wait()
        reply = call(house.visitor(key=key), "/users", {"name": "kembar", "role": "viewer"},
                     **{"Idempotency-Key": "twin"})
        statuses.append(reply.status_code)

    threads = [threading.Thread(target=add_user) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses.count(200) >= 1 and set(statuses) <= {200, 409}
    again = answered(call(house.visitor(key=key), "/users", {"name": "kembar", "role": "viewer"},
                          **{"Idempotency-Key": "twin"}))
    assert again["user"]["name"] == "kembar" and again["password"] is None


def test_an_accession_is_corrected_with_before_and_after(house: Doors, operator: Visitor, study: str) -> None:
    row = job_of(house, study)
    answered(call(operator, f"/jobs/{row.job_id}/accession", {"accession_number": "ACC8"}), 422)
    done = answered(call(operator, f"/jobs/{row.job_id}/accession", {"accession_number": "ACC8", "reason": "typo"}))
    assert done["state"] == "queued"
    entry = house.audit("study.accession")[0]
    assert (entry.study_uid, entry.fields["before"], entry.fields["after"]) == (study, "ACC7", "ACC8")
    proposals = answered(operator.get(f"/api/v1/jobs/{row.job_id}/proposals"))
    assert (proposals["received"], proposals["sent_as"]) == ("ACC7", "ACC8")


def test_taking_back_needs_two_people_and_no_key(house: Doors, operator: Visitor, study: str) -> None:
    row = job_of(house, study)
    with house.store.transaction() as tx:
        tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?) ON CONFLICT (job_id,"
                   " environment) DO UPDATE SET facts = excluded.facts",
                   (row.job_id, row.environment, '{"imaging_study_id": "i1"}'))
        jobs.act(tx, [row.job_id], Event.CANCEL, who="x", now=1)
    assert answered(call(operator, f"/jobs/{row.job_id}/withdraw", {"reason": "wrong"}), 409)["error"] == "conflict"
    one, two = house.logged_in("operator"), house.logged_in("admin")
    token = {"X-CSRF-Token": one.csrf()}
    code = answered(call(one, f"/jobs/{row.job_id}/withdraw", {"reason": "wrong patient"}, **token))["code"]
    confirm = f"/jobs/{row.job_id}/withdraw/confirm"
    assert answered(call(one, confirm, {"code": code}, **token), 409)["error"] == "conflict"
    started = answered(call(two, confirm, {"code": code}, **{"X-CSRF-Token": two.csrf()}))
    assert started["job_id"] != row.job_id
    assert {entry.action for entry in house.audit()} >= {"study.withdraw", "study.withdraw-confirm"}


def test_one_person_is_one_by_api_page_and_command(house: Doors, operator: Visitor, study: str) -> None:
    row = job_of(house, study)
    with house.store.transaction() as tx:
        tx.execute("INSERT INTO job_facts (job_id, environment, facts) VALUES (?, ?, ?) ON CONFLICT (job_id,"
                   " environment) DO UPDATE SET facts = excluded.facts",
                   (row.job_id, row.environment, '{"imaging_study_id": "i1"}'))
    one = house.logged_in("operator")
    asked = call(one, f"/jobs/{row.job_id}/withdraw", {"reason": "wrong patient"}, **{"X-CSRF-Token": one.csrf()})
    code = answered(asked)["code"]
    page = f"/studies/{study}/jobs/{row.job_id}/withdraw-confirm"
    assert one.post(page, {"code": code}).status_code == 409
    assert operator.post(page, {"code": code}).status_code == 403
    for who in ("cli:Operator", "cli: user:OPERATOR", "key:abc", "operator"):
        with pytest.raises(NotAllowed, match=r"another one|not by a key"), house.store.transaction() as tx:
            withdrawals.confirm(tx, study, "ACC7", code, who=who, now=house.context.clock.now_ms())
    assert house.logged_in("admin").post(page, {"code": code}).status_code == 303


def test_a_form_of_another_site_changes_nothing(house: Doors) -> None:
    browser = house.logged_in("operator")
    assert answered(call(browser, "/lanes/satusehat/pause"), 403)["error"] == "csrf"


def test_lanes_devices_and_aliases_are_run(house: Doors, operator: Visitor) -> None:
    paused = answered(call(operator, "/lanes/satusehat/pause", {"reason": "maintenance"}))
    assert (paused["open"], paused["words"]) == (False, "maintenance")
    assert [one["open"] for one in answered(operator.get("/api/v1/lanes"))] == [False]
    assert answered(call(operator, "/lanes/satusehat/resume"))["open"] is True
    assert answered(call(operator, "/lanes/nowhere/pause"), 404)["error"] == "not-found"
    admitted = answered(call(operator, "/devices/decide", {"aet": "CT9", "verdict": "refuse"}))
    assert admitted["verdict"] == "refuse"
    assert "CT9" in {one["aet"] for one in answered(operator.get("/api/v1/devices"))}
    assert answered(call(operator, "/devices/decide", {"aet": "CT9", "verdict": None}))["verdict"] == ""
    there = answered(call(operator, "/devices/decide", {"aet": "CT9", "address": "[2001:DB8::9]", "verdict": "accept"}))
    assert (there["address"], there["verdict"]) == ("2001:db8::9", "accept")
    assert answered(call(operator, "/devices/decide", {"aet": "CT9", "address": "2001:db8::9", "verdict": None}))[
        "verdict"] == ""
    answered(call(operator, "/aliases", {"sent": "X1", "meant": "ACC1"}))
    assert answered(call(operator, "/aliases/remove", {"sent": "X1"}))["meant"] == ""
    assert answered(call(operator, "/aliases/remove", {"sent": "X1"}), 404)["error"] == "not-found"
    actions = {entry.action for entry in house.audit()}
    assert {"lane.pause", "lane.resume", "device.decide", "alias.set", "alias.remove"} <= actions


def test_an_order_wakes_what_waits_for_it(house: Doors) -> None:
    uid = "1.2.826.0.8.1"
    add(house.store, instance(1, study=uid, part="ORD1"))
    settle_study(house.store, uid, part="ORD1")
    row = job_of(house, uid)
    with house.store.transaction() as tx:
        tx.execute("UPDATE job SET state = 'waiting', waiting_since = 1 WHERE job_id = ?", (row.job_id,))
    his = house.visitor(key=house.key("orders"))
    taken = answered(call(his, "/orders", {"order_id": "9", "accession_number": "ORD1", "day": "20260101"}))
    assert taken == {"woken": 1} and job_of(house, uid).state is State.QUEUED
    assert his.get("/api/v1/jobs").status_code == 403


def test_accounts_and_keys_are_shown_once_and_go(house: Doors, admin: Visitor) -> None:
    made = answered(call(admin, "/keys", {"name": "SIMRS", "rights": ["orders"]}, **{"Idempotency-Key": "k"}))
    assert house.visitor(key=made["secret"]).get("/api/v1/lanes").status_code == 403
    assert answered(call(admin, "/keys", {"name": "SIMRS", "rights": ["orders"]},
                         **{"Idempotency-Key": "k"}))["secret"] is None
    answered(call(admin, f"/keys/{made['key']['key_id']}/revoke"))
    assert house.visitor(key=made["secret"]).get("/api/v1/lanes").status_code == 401
    new = answered(call(admin, "/users", {"name": "sari", "role": "viewer"}))
    assert len(new["password"]) >= 12
    assert answered(call(admin, "/users/sari/role", {"role": "operator"}))["role"] == "operator"
    assert answered(call(admin, "/users/sari/disable"))["disabled_at"]
    assert answered(call(admin, "/users/sari/enable"))["disabled_at"] is None
    assert answered(call(admin, "/users/sari/reset-password"))["password"] != new["password"]
    assert "password" not in json.dumps(answered(admin.get("/api/v1/users")))


def test_an_alert_is_seen_and_acknowledged(house: Doors, operator: Visitor) -> None:
    with house.store.transaction() as tx:
        alert_id = alerts.raise_alert(tx, "default", Finding(Condition.DISK, "", {"days": 3, "free_gb": 9}),
                                      quiet_ms=0, channels=(), now=1000)
    shown = answered(operator.get("/api/v1/alerts?open_only=true"))["alerts"][0]
    assert shown["title"]["en"] == "the disk is filling up" and "3" in shown["detail"]["id"]
    known = answered(call(operator, f"/alerts/{alert_id}/acknowledge"))
    assert known["acknowledged_at"] and known["acknowledged_by"].startswith("key:")
    assert answered(call(operator, "/alerts/999/acknowledge"), 404)["error"] == "not-found"


# --- the feed ------------------------------------------------------------------------------------------------------

def lines_of(reply: requests.Response) -> Iterator[str]:
    yield from reply.iter_lines(chunk_size=1, decode_unicode=True)


def test_the_stream_says_look_again_and_names_no_patient(house: Doors, operator: Visitor, study: str) -> None:
    with operator.session.get(f"{house.url}/api/v1/events/stream", stream=True, timeout=20) as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        lines = lines_of(reply)
        assert next(lines).startswith("retry:")
        told = threading.Event()

        def act() -> None:
            while not told.wait(0.3):
                with house.store.transaction() as tx:
                    jobs.add_event(tx, 5, "lane-paused", PATIENT, study_uid=study)

        worker = threading.Thread(target=act)
        worker.start()
        try:
            data = next(line for line in lines if line.startswith("data:"))
        finally:
            told.set()
            worker.join(10)
    news = json.loads(data.removeprefix("data:"))
    assert "lanes" in news["what"] and news["study_uids"] == [study]
    assert PATIENT not in data


def test_a_test_message_is_sent_once_for_each_key(open_doors: Callable[..., Doors]) -> None:
    hospital = Hospital()
    doors = open_doors(**{"alert:it__webhook_url": f"{hospital.url}/x"})
    visitor = doors.visitor(key=doors.key("administer"))
    first, again = (call(visitor, "/alerts/rules/it/test", **{"Idempotency-Key": "once"}) for _ in range(2))
    hospital.close()
    assert [one["name"] for one in answered(first)] == ["webhook"] and answered(again) == answered(first)
    assert len(hospital.told) == len(doors.audit("alert.test")) == 1


def test_what_could_not_be_read_is_told_at_the_next_look(house: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("interface.http.api.feed._LOOK_EVERY_S", 0.01)
    faults: list[Exception] = []

    class Failing(Feed):
        def _read(self, cursor: str) -> tuple[list[tuple[str, str]], str]:
            if not faults:
                faults.append(Transient())
                raise faults[0]
            return super()._read(cursor)

    async def listen() -> None:
        feed = Failing(house.context)
        listener = feed.join("test")
        while not feed._cursor:
            await asyncio.sleep(0)
        with house.store.transaction() as tx:
            events.add_event(tx, 1, "note", "", study_uid=STUDY)
        await asyncio.wait_for(listener.rang.wait(), 10)
        assert faults and listener.study_uids == {STUDY}

    with ThreadPoolExecutor(1) as other:  # a browser that another test has started keeps the loop of this thread
        other.submit(asyncio.run, listen()).result()


def test_streams_are_bounded_for_each(house: Doors) -> None:
    visitor = house.visitor(key=house.key("view"))
    open_streams: list[tuple[requests.Response, Iterator[str]]] = []
    try:
        for _ in range(8):
            reply = visitor.session.get(f"{house.url}/api/v1/events/stream", stream=True, timeout=20)
            assert reply.status_code == 200
            open_streams.append((reply, lines_of(reply)))
            next(open_streams[-1][1])
        assert visitor.get("/api/v1/events/stream").status_code == 429
    finally:
        for reply, _ in open_streams:
            reply.close()


def test_events_are_read_once_each(house: Doors, operator: Visitor) -> None:
    with house.store.transaction() as tx:
        for number in range(4):
            jobs.add_event(tx, number, "lane-paused", "x")
    seen: list[int] = []
    cursor = "0-0"
    while True:
        page = answered(operator.get(f"/api/v1/events?cursor={cursor}&limit=3"))
        if not page["events"]:
            break
        seen += [one["event_id"] for one in page["events"]]
        cursor = page["cursor"]
    assert seen == sorted(set(seen)) and seen


# --- the document --------------------------------------------------------------------------------------------------

def test_the_document_names_every_route_its_right_and_how_it_fails(house: Doors, operator: Visitor) -> None:
    document = answered(operator.get("/api/swagger.json"))
    assert document["openapi"].startswith("3.")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            assert operation["x-right"] and operation["summary"], (method, path)
            assert operation["responses"]["422"]["content"]["application/json"]["schema"] == {
                "$ref": "#/components/schemas/Error"}
            if method == "post" and path.startswith("/api/v1") and not path.endswith(("/search", "/export")):
                assert "Idempotency-Key" in {one["name"] for one in operation["parameters"]}, path


def test_nothing_that_names_a_patient_is_part_of_an_address(operator: Visitor) -> None:
    document = answered(operator.get("/api/swagger.json"))
    names = {one["name"] for operations in document["paths"].values() for operation in operations.values()
             for one in operation.get("parameters", ()) if one["in"] in ("path", "query")}
    assert not {name for name in names if "patient" in name or "accession" in name or name in ("text", "name_id")}
