"""FHIR verbs, headers and Bundles. Source: fact sheet sections 2.1 to 2.5."""

from __future__ import annotations

import base64
import re
import uuid
from typing import Any

import pytest

from tests.contract.sandbox.sandbox_client import ACSN, ORG, Sandbox, Study, build_observation, build_report


def texts(answer: Any) -> str:
    return " / ".join(issue["details"]["text"] for issue in answer.json()["issue"])


def stored(sandbox: Sandbox, type_name: str, position: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = sandbox.state()["resources"][type_name][position]
    return found


def test_answer_to_a_create(sandbox: Sandbox) -> None:
    order = sandbox.order("A-1")
    study = Study(sandbox, "A-2")
    answer = sandbox.fhir("POST", "/ImagingStudy", {**study.resource(), "identifier": [
        {"system": ACSN, "value": order["accession_number"]}]})
    assert answer.status_code == 201, answer.text
    body = answer.json()
    version = body["meta"]["versionId"]
    assert list(body) == sorted(body) and answer.headers["content-type"] == "application/json"
    assert answer.headers["etag"] == f'W/"{version}"'
    assert base64.b64decode(version + "==").isdigit()
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d UTC", answer.headers["last-modified"])
    assert answer.headers["location"].startswith("https://healthcare.googleapis.com/")
    assert answer.headers["location"].endswith(f"/fhir/ImagingStudy/{body['id']}/_history/{version}")
    assert uuid.UUID(answer.headers["x-request-id"]) and answer.headers["via"] == "1.1 google"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00", body["meta"]["lastUpdated"])


def test_update_replaces_the_whole_resource(sandbox: Sandbox, study: Study) -> None:
    resource = study.resource()
    del resource["description"]
    answer = sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", {**resource, "id": study.id})
    assert answer.status_code == 200 and "description" not in answer.json()
    assert "description" not in sandbox.fhir("GET", f"/ImagingStudy/{study.id}").json()
    assert [one["writes"] for one in sandbox.state()["created"] if one["id"] == study.id] == [2]


def test_update_with_another_id_is_a_mismatch(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", {**study.resource(), "id": "other"})
    assert answer.status_code == 400 and texts(answer) == "resource_mismatch"
    assert answer.headers["content-type"] == "application/fhir+json;charset=utf-8"
    assert f"id of specified resource: {study.id}, id from payload: other" in answer.json()["issue"][0]["diagnostics"]


def test_read_and_update_of_what_does_not_exist(sandbox: Sandbox, study: Study) -> None:
    assert sandbox.fhir("GET", "/ImagingStudy/none").status_code == 404
    answer = sandbox.fhir("PUT", "/ImagingStudy/none", {**study.resource(), "id": "none", "identifier": [
        {"system": ACSN, "value": "unseen"}]})
    assert answer.status_code == 404 and "20007" in texts(answer)


@pytest.mark.parametrize("content_type", ["application/json", "application/json-patch+json"])
def test_patch(sandbox: Sandbox, study: Study, content_type: str) -> None:
    operations = [{"op": "replace", "path": "/description", "value": "Baru"},
                  {"op": "add", "path": "/series/0/instance/-", "value": {
                      "uid": "1.2.3", "sopClass": {"system": "urn:ietf:rfc:3986", "code": "urn:oid:1.2"}}}]
    answer = sandbox.fhir("PATCH", f"/ImagingStudy/{study.id}", operations, **{"Content-Type": content_type})
    assert answer.status_code == 200, answer.text
    assert answer.json()["description"] == "Baru" and answer.json()["series"][0]["instance"][-1]["uid"] == "1.2.3"


@pytest.mark.parametrize("operation", [
    {"op": "remove", "path": "/description"}, {"op": "replace", "path": "/nothing", "value": 1},
    {"op": "replace", "path": "/id", "value": "x"}, {"op": "add", "path": "/series/9", "value": {}},
    {"op": "add", "path": "description", "value": "x"}, {"op": "replace", "path": "/status", "value": "nonsense"}, 7])
def test_patch_that_is_refused_changes_nothing(sandbox: Sandbox, study: Study, operation: Any) -> None:
    before = sandbox.fhir("GET", f"/ImagingStudy/{study.id}").text
    assert sandbox.fhir("PATCH", f"/ImagingStudy/{study.id}", [operation]).status_code == 400
    assert sandbox.fhir("GET", f"/ImagingStudy/{study.id}").text == before


def test_what_the_server_adds_by_itself(sandbox: Sandbox, study: Study) -> None:
    first = sandbox.fhir("POST", "/Observation", build_observation(study))
    assert first.status_code == 201 and first.json()["identifier"] == []
    again = sandbox.fhir("PUT", f"/Observation/{first.json()['id']}", first.json())
    assert again.status_code == 200, again.text
    answer = sandbox.fhir("POST", "/DiagnosticReport", build_report(study, first.json()["id"]))
    assert answer.status_code == 201, answer.text
    assert answer.json()["identifier"][-1] == {"system": "http://sys-ids.kemkes.go.id/creator", "value": ORG}


def test_what_an_order_creates_is_valid_by_the_rules(sandbox: Sandbox) -> None:
    for modality in ("CT", "MR", "DX", "US"):
        sandbox.order(f"V-{modality}", modality=modality)
    for type_name in ("Encounter", "ServiceRequest"):
        for resource in sandbox.state()["resources"][type_name]:
            answer = sandbox.fhir("PUT", f"/{type_name}/{resource['id']}", resource)
            assert answer.status_code == 200, answer.text
    patient = {**stored(sandbox, "Patient"), "identifier": [
        {"system": "https://fhir.kemkes.go.id/id/nik", "value": "9900000000000001"}]}
    answer = sandbox.fhir("POST", "/Patient", patient)
    assert answer.status_code == 201 and re.fullmatch(r"P\d{11}", answer.json()["id"])


def test_duplicates_are_refused_or_allowed(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.fhir("POST", "/ImagingStudy", study.resource())
    assert answer.status_code == 400 and answer.json()["issue"][0]["code"] == "duplicate"
    assert texts(answer) == "Found duplicate resource: ImagingStudy (RuleNumber: 20002)"
    assert study.id not in answer.text
    sandbox.control("POST", "/settings", {"allow_duplicates": True})
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource()).status_code == 201
    assert len(sandbox.state()["resources"]["ImagingStudy"]) == 2


def test_duplicates_are_found_before_the_index_knows(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"index_delay_s": 3600})
    study = Study(sandbox, "D-1")
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource()).status_code == 400
    changed = {**study.resource(), "id": study.id, "identifier": [{"system": ACSN, "value": "D-2"}]}
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", changed).status_code == 200
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource()).status_code == 201


def test_if_none_exist_is_honoured_for_encounters_only(sandbox: Sandbox, study: Study) -> None:
    sandbox.control("POST", "/settings", {"allow_duplicates": True})
    encounter = stored(sandbox, "Encounter")
    one = encounter["identifier"][0]
    condition = {"If-None-Exist": f"identifier={one['system']}|{one['value']}"}
    answer = sandbox.fhir("POST", "/Encounter", encounter, **condition)
    assert answer.status_code == 200 and answer.json()["id"] == encounter["id"]
    condition = {"If-None-Exist": f"identifier={ACSN}|{study.order['accession_number']}"}
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource(), **condition).status_code == 201
    sandbox.control("POST", "/settings", {"if_none_exist": "all"})
    answer = sandbox.fhir("POST", "/ImagingStudy", study.resource(), **condition)
    assert answer.status_code == 412, "two match by now"


def transaction(study: Study) -> dict[str, Any]:
    urls = [f"urn:uuid:{uuid.uuid4()}" for _ in range(2)]
    second = build_report(study, "x", result=[{"reference": urls[0]}])
    return {"resourceType": "Bundle", "type": "transaction", "entry": [
        {"fullUrl": url, "resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
        for url, resource in zip(urls, [build_observation(study), second], strict=True)]}


def test_transaction_resolves_references_between_entries(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.fhir("POST", "", transaction(study))
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["type"], body["total"]) == ("transaction-response", 2)
    made = [entry["response"] for entry in body["entry"]]
    assert [one["resourceType"] for one in made] == ["Observation", "DiagnosticReport"]
    assert all(one["status"] == "201 Created" and f"/{one['resourceID']}/_history/" in one["location"] for one in made)
    result = sandbox.fhir("GET", f"/DiagnosticReport/{made[1]['resourceID']}").json()["result"]
    assert result == [{"reference": f"Observation/{made[0]['resourceID']}"}]


def break_url(bundle: dict[str, Any]) -> None:
    bundle["entry"][1]["fullUrl"] = bundle["entry"][0]["fullUrl"]


@pytest.mark.parametrize(("spoil", "rule"), [
    (lambda bundle: bundle["entry"][1].pop("fullUrl"), 20021),
    (lambda bundle: bundle["entry"][1].update(fullUrl="http://x"), 20018),
    (lambda bundle: bundle["entry"][1].update(fullUrl="urn:uuid:1"), 20019),
    (break_url, 20020),
    (lambda bundle: bundle["entry"][1].update(resource={"resourceType": "Bundle"}), 20011),
    (lambda bundle: bundle["entry"].append(3), 20008),
    (lambda bundle: bundle["entry"][1]["resource"].pop("status"), 10072)])
def test_transaction_is_all_or_nothing(sandbox: Sandbox, study: Study, spoil: Any, rule: int) -> None:
    bundle = transaction(study)
    spoil(bundle)
    answer = sandbox.fhir("POST", "", bundle)
    assert answer.status_code == 400 and f"RuleNumber: {rule}" in texts(answer), answer.text
    assert "Observation" not in sandbox.state()["resources"]


def test_transaction_with_a_duplicate_inside_stores_nothing(sandbox: Sandbox, study: Study) -> None:
    bundle = transaction(study)
    extra = {**bundle["entry"][1], "fullUrl": f"urn:uuid:{uuid.uuid4()}"}
    bundle["entry"].append(extra)
    answer = sandbox.fhir("POST", "", bundle)
    assert answer.status_code == 400 and "20002" in texts(answer)
    assert "DiagnosticReport" not in sandbox.state()["resources"]


def test_paths_that_do_not_exist(sandbox: Sandbox) -> None:
    for method, path in (("GET", "/Nonsense"), ("DELETE", "/Patient/P1"), ("GET", "/Patient/1/2/3")):
        answer = sandbox.fhir(method, path)
        assert (answer.status_code, answer.content) == (404, b"")


def test_resources_clients_may_not_write(sandbox: Sandbox, study: Study) -> None:
    answer = sandbox.fhir("POST", "/Practitioner", {"resourceType": "Practitioner", "name": [{"text": "dr. X"}]})
    assert answer.status_code == 400 and "20004" in texts(answer)
    patient = stored(sandbox, "Patient")
    answer = sandbox.fhir("PUT", f"/Patient/{patient['id']}", patient)
    assert answer.status_code == 400 and "20016" in texts(answer)


def test_metadata_names_the_version(sandbox: Sandbox) -> None:
    body = sandbox.fhir("GET", "/metadata").json()
    assert (body["resourceType"], body["fhirVersion"]) == ("CapabilityStatement", "4.0.1")
