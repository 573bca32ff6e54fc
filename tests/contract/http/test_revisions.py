"""Settings as rows over the API: who changed what, the way back, the receiver told, the audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from internal import lanes
from internal.spool import POLICY_NAME
from tests.contract.http.doors import Doors, Visitor

DEVICE = f"/api/v1/settings/device/{quote('CT/1@192.0.2.7', safe='')}"
LANE = "/api/v1/settings/lane/satusehat"


def send(visitor: Visitor, method: str, path: str, body: dict[str, Any], status: int = 200) -> dict[str, Any]:
    reply = visitor.request(method, path, json=body, headers={"X-CSRF-Token": visitor.csrf()})
    assert reply.status_code == status, reply.text
    return dict(reply.json())


def policy(doors: Doors) -> list[dict[str, str]]:
    return list(json.loads(doors.spool.read_published(POLICY_NAME) or b"{}")["callers"])


def test_a_device_is_refused_and_brought_back_and_the_receiver_knows(doors: Doors) -> None:
    admin = doors.logged_in("admin")
    admitted = {"aet": "CT/1", "address": "192.0.2.7", "verdict": "accept"}
    first = send(admin, "PUT", f"{DEVICE}/current", {"body": admitted})
    assert (first["revision"], first["author"]) == (1, "user:admin")
    send(admin, "PUT", f"{DEVICE}/current", {"body": {**admitted, "verdict": "refuse"}})
    assert policy(doors) == [{"aet": "CT/1", "address": "192.0.2.7", "verdict": "refuse"}]
    back = send(admin, "POST", f"{DEVICE}/rollback", {"revision": 1})
    assert (back["revision"], back["restores"], back["body"]) == (3, 1, admitted)
    assert policy(doors) == [{"aet": "CT/1", "address": "192.0.2.7", "verdict": "accept"}]
    history = admin.get(f"{DEVICE}/revisions").json()
    assert [one["revision"] for one in history] == [3, 2, 1]
    compared = admin.get(f"{DEVICE}/revisions/3").json()
    assert compared["differences"] == [{"path": "verdict", "before": "refuse", "after": "accept"}]
    assert admin.get(f"{DEVICE}/revisions/3?to=1").json()["differences"] == []
    (entry,) = doors.audit("settings.rollback")
    assert (entry.subject, entry.author, entry.fields["restores"]) == ("device/CT/1@192.0.2.7", "user:admin", 1)
    assert (entry.fields["before"]["verdict"], entry.fields["after"]["verdict"]) == ("refuse", "accept")


def test_a_device_with_an_ipv6_address_is_one_setting_in_brackets_or_not(doors: Doors) -> None:
    admin = doors.logged_in("admin")
    bare, brackets = (f"/api/v1/settings/device/{quote(name, safe='')}" for name in ("CT1@2001:db8::7",
                                                                                     "CT1@[2001:DB8::7]"))
    for number, (path, verdict) in enumerate([(bare, "accept"), (brackets, "refuse")], start=1):
        assert send(admin, "PUT", f"{path}/current", {"body": {"verdict": verdict}})["revision"] == number
    assert policy(doors) == [{"aet": "CT1", "address": "2001:db8::7", "verdict": "refuse"}]
    assert send(admin, "POST", f"{brackets}/rollback", {"revision": 1})["name"] == "CT1@2001:db8::7"
    assert admin.get(f"{brackets}/revisions").json() == admin.get(f"{bare}/revisions").json()
    assert admin.get(f"{brackets}/revisions/2").json() == admin.get(f"{bare}/revisions/2").json()


def test_a_lane_is_set_and_what_is_wrong_is_named(doors: Doors) -> None:
    admin = doors.logged_in("admin")
    send(admin, "PUT", f"{LANE}/current", {"body": {"paused": True, "reason": "repairs"}})
    with doors.store.reading() as tx:
        assert lanes.lane(tx, "satusehat").reason == "repairs"
    refused = send(admin, "PUT", f"{LANE}/current", {"body": {"bandwidth": 5}}, status=409)
    assert "bandwidth is a number" in refused["detail"][0]
    send(admin, "PUT", f"{LANE}/current", {"body": None, "more": 1}, status=422)
    send(admin, "PUT", f"{LANE}/current", {"body": None})
    with doors.store.reading() as tx:
        assert lanes.lane(tx, "satusehat").paused_until == 0
    assert len(doors.audit("settings.change")) == 2, "what was refused changed nothing"


def test_what_the_file_states_is_not_changed_here(open_doors: Callable[..., Doors]) -> None:
    from internal.users import Role

    doors = open_doors(satusehat__bandwidth="2MB")
    doors.add_user("admin", Role.ADMIN)
    refused = send(doors.logged_in("admin"), "PUT", f"{LANE}/current", {"body": {"bandwidth": 1024**2}}, status=409)
    assert "configuration file" in refused["detail"][0]


def test_unknown_kinds_names_and_revisions(doors: Doors) -> None:
    admin = doors.logged_in("admin")
    assert admin.get("/api/v1/settings/nonsense").status_code == 404
    assert admin.get(f"{LANE}/revisions").status_code == 404
    assert admin.get(f"{LANE}/revisions/1").status_code == 404
    assert admin.get("/api/v1/settings/lane").json() == []
    send(admin, "POST", f"{LANE}/rollback", {"revision": 7}, status=404)
    send(admin, "PUT", "/api/v1/settings/nonsense/x/current", {"body": {}}, status=404)


def test_who_may_only_look_changes_nothing(doors: Doors) -> None:
    admin, viewer = doors.logged_in("admin"), doors.logged_in("viewer")
    send(admin, "PUT", f"{LANE}/current", {"body": {"paused": True}})
    assert viewer.get(f"{LANE}/revisions").status_code == 403
    send(viewer, "POST", f"{LANE}/rollback", {"revision": 1}, status=403)
    send(doors.logged_in("operator"), "PUT", f"{LANE}/current", {"body": None}, status=403)


def test_a_rule_is_written_refused_with_its_cause_and_brought_back(doors: Doors) -> None:
    admin, rule = doors.logged_in("admin"), "/api/v1/settings/rule/night"
    body = {"entries": {"when": "time in 22:00-06:00", "do": 'set PatientID = "N-{PatientID}"', "send_to": "satusehat"}}
    assert send(admin, "PUT", f"{rule}/current", {"body": body})["revision"] == 1
    wrong = {"entries": {"do": 'set PatientNam = "x"', "send_to": "satusehat"}}
    refused = send(admin, "PUT", f"{rule}/current", {"body": wrong}, status=409)
    assert "did you mean PatientName?" in refused["detail"][0]
    send(admin, "PUT", f"{rule}/current", {"body": None})
    assert send(admin, "POST", f"{rule}/rollback", {"revision": 1})["body"] == {**body, "position": 0}
    assert [one["name"] for one in admin.get("/api/v1/settings/rule").json()] == ["night"]
    assert len(doors.audit("settings.change")) == 2
