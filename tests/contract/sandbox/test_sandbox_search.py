"""Search, its traps and its lag, and what is shown of patients. Source: fact sheet sections 2.2 and 2.3."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from tests.contract.sandbox.sandbox_client import ACSN, Sandbox, Study, until


def ids(sandbox: Sandbox, path: str) -> list[str]:
    answer = sandbox.fhir("GET", path)
    assert answer.status_code == 200, answer.text
    return [entry["resource"]["id"] for entry in answer.json()["entry"]]


def test_bundle_of_a_match_and_of_none(sandbox: Sandbox, study: Study) -> None:
    bundle = sandbox.fhir("GET", f"/ImagingStudy?identifier={ACSN}%7CRAD2501020001").json()
    assert (bundle["type"], bundle["total"]) == ("searchset", 1)
    assert bundle["entry"][0]["fullUrl"] == f"{sandbox.url}/fhir-r4/v1/ImagingStudy/{study.id}"
    assert [link["relation"] for link in bundle["link"]] == ["search", "first", "self"]
    assert quote(f"{ACSN}|RAD2501020001", safe="") in bundle["link"][0]["url"]
    none = sandbox.fhir("GET", f"/ImagingStudy?identifier={ACSN}%7CNONE").json()
    assert none["total"] == 0 and none["entry"] == []


def test_an_empty_code_matches_everything_of_that_system(sandbox: Sandbox) -> None:
    made = {sandbox.order(accession)["service_request_id"] for accession in ("T-1", "T-2")}
    assert set(ids(sandbox, f"/ServiceRequest?identifier={ACSN}%7C")) == made


def test_an_accession_is_found_exactly(sandbox: Sandbox) -> None:
    wanted = sandbox.order("A+B&C#1%|,x")["service_request_id"]
    sandbox.order("A")
    encoded = quote(f"{ACSN}|A+B&C#1%|\\,x", safe="")
    assert ids(sandbox, f"/ServiceRequest?identifier={encoded}") == [wanted]
    assert ids(sandbox, f"/ServiceRequest?identifier={quote(ACSN + '|a', safe='')}") == []
    assert ids(sandbox, f"/ServiceRequest?identifier={quote('http://other|A', safe='')}") == []


def test_the_same_accession_twice_newest_first(sandbox: Sandbox) -> None:
    first, second = (sandbox.order("S-1")["service_request_id"] for _ in range(2))
    search = f"/ServiceRequest?identifier={ACSN}%7CS-1"
    assert ids(sandbox, search + "&_sort=-_lastUpdated") == [second, first]
    assert ids(sandbox, search + "&_sort=_lastUpdated") == [first, second]
    assert ids(sandbox, search + "&_sort=-_lastUpdated&_count=1") == [second]


def test_pages(sandbox: Sandbox) -> None:
    made = [sandbox.order(f"P-{number}")["service_request_id"] for number in range(5)]
    found: list[str] = []
    url = f"{sandbox.url}/fhir-r4/v1/ServiceRequest?_count=2&_sort=_lastUpdated"
    while url:
        bundle = sandbox.session.get(url, headers=sandbox.bearer).json()
        assert bundle["total"] == 5
        found += [entry["resource"]["id"] for entry in bundle["entry"]]
        url = next((link["url"] for link in bundle["link"] if link["relation"] == "next"), "")
    assert found == made


@pytest.mark.parametrize("parameter", ["basedon", "basedOn"])
@pytest.mark.parametrize("form", ["{}", "ServiceRequest/{}", "http://host/fhir-r4/v1/ServiceRequest/{}"])
def test_references_bare_and_with_type(sandbox: Sandbox, study: Study, parameter: str, form: str) -> None:
    Study(sandbox, "OTHER")
    reference = quote(form.format(study.order["service_request_id"]), safe="")
    assert ids(sandbox, f"/ImagingStudy?{parameter}={reference}") == [study.id]


def test_several_criteria_must_all_hold(sandbox: Sandbox, study: Study) -> None:
    patient = study.order["patient_id"]
    assert ids(sandbox, f"/ImagingStudy?subject={patient}&status=available") == [study.id]
    assert ids(sandbox, f"/ImagingStudy?patient=Patient/{patient}&status=cancelled") == []
    assert ids(sandbox, f"/ImagingStudy?identifier=urn:dicom:uid%7Curn:oid:{study.uid}") == [study.id]
    assert ids(sandbox, f"/ImagingStudy?identifier=urn:oid:{study.uid},x&colour=red") == [study.id]


@pytest.mark.parametrize("query", ["_count=x", "_count=-1", "&".join("status=a" for _ in range(60)),
                                   "identifier=" + "," * 200])
def test_searches_that_are_refused(sandbox: Sandbox, query: str) -> None:
    assert sandbox.fhir("GET", f"/ImagingStudy?{query}").status_code == 400


def test_index_lag(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"index_delay_s": 3600})
    late = Study(sandbox, "LAG-1")
    sandbox.control("POST", "/settings", {"index_delay_s": 0.2})
    soon = Study(sandbox, "LAG-2")
    assert sandbox.fhir("GET", f"/ImagingStudy/{late.id}").status_code == 200, "readable by id at once"
    until(lambda: ids(sandbox, f"/ImagingStudy?identifier={ACSN}%7CLAG-2") == [soon.id], "the index catches up")
    assert ids(sandbox, f"/ImagingStudy?identifier={ACSN}%7CLAG-1") == []
    assert ids(sandbox, f"/ServiceRequest?identifier={ACSN}%7CLAG-1") == []


def test_index_lag_of_an_update_shows_the_old_values(sandbox: Sandbox, study: Study) -> None:
    sandbox.control("POST", "/settings", {"index_delay_s": 3600})
    changed = {**study.resource(), "id": study.id, "status": "cancelled"}
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", changed).status_code == 200
    assert ids(sandbox, "/ImagingStudy?status=available") == [study.id]
    assert ids(sandbox, "/ImagingStudy?status=cancelled") == []
    sandbox.control("POST", "/settings", {"index_delay_s": 0})
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", changed).status_code == 200
    assert ids(sandbox, "/ImagingStudy?status=available") == []
    assert ids(sandbox, "/ImagingStudy?status=cancelled") == [study.id]


def test_an_order_can_pass_the_lag(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"index_delay_s": 3600})
    sandbox.order("L-1")
    known = sandbox.order("L-2", indexed=True)["service_request_id"]
    assert ids(sandbox, "/ServiceRequest") == [known]


def test_a_client_that_does_not_search_and_wait_makes_duplicates(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/settings", {"index_delay_s": 3600, "allow_duplicates": True})
    study = Study(sandbox, "DUP-1")
    condition = {"If-None-Exist": f"identifier={ACSN}|DUP-1"}
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource(), **condition).status_code == 201
    assert len(sandbox.state()["resources"]["ImagingStudy"]) == 2


def test_patients_are_masked(sandbox: Sandbox) -> None:
    made = sandbox.order("M-1", name="Cendana Rimba Contoh", birth_date="1990-05-15", gender="female")
    nik = sandbox.state()["resources"]["Patient"][0]["identifier"][0]["value"]
    read = sandbox.fhir("GET", f"/Patient/{made['patient_id']}").json()
    assert set(read) == {"active", "id", "identifier", "meta", "resourceType"}
    assert read["identifier"][0]["value"] == "################"
    search = f"/Patient?identifier=https://fhir.kemkes.go.id/id/nik%7C{nik}"
    bundle = sandbox.fhir("GET", search)
    found = bundle.json()["entry"][0]["resource"]
    assert found["name"] == [{"use": "official", "text": "C****** R**** C*****"}]
    assert not {"gender", "birthDate"} & set(found) and "1990" not in found["identifier"][0]["value"]
    assert "Cendana" not in bundle.text and nik not in str(bundle.json()["entry"])
    assert ids(sandbox, "/Patient?name=cendana&birthdate=1990-05-15&gender=female") == [made["patient_id"]]
    assert ids(sandbox, "/Patient?name=cendana&birthdate=1990-05-16") == []


def test_privacy_suppressed_and_forbidden(sandbox: Sandbox, study: Study) -> None:
    patient_id = study.order["patient_id"]
    paths = (f"/Patient/{patient_id}", f"/ImagingStudy/{study.id}", f"/ImagingStudy?subject={patient_id}")

    def answers() -> list[tuple[int, Any]]:
        found = [sandbox.fhir("GET", path) for path in paths]
        return [(one.status_code, one.json().get("issue", [{}])[0].get("code")) for one in found]

    sandbox.control("POST", "/privacy", {"patient_id": patient_id, "mode": "suppressed"})
    assert answers() == [(200, "suppressed")] * 3
    sandbox.control("POST", "/privacy", {"patient_id": patient_id, "mode": "forbidden"})
    assert answers() == [(400, "forbidden")] * 3
    assert sandbox.fhir("POST", "/ImagingStudy", study.resource()).json()["issue"][0]["code"] == "forbidden"
    sandbox.control("POST", "/privacy", {"patient_id": patient_id, "mode": "normal"})
    assert answers() == [(200, None)] * 3


def test_what_a_hospital_finds_before_its_first_order(sandbox: Sandbox) -> None:
    assert sandbox.state()["resources"] == {}
    assert ids(sandbox, "/Organization/?name=Rumah") == ["100099001"]
    assert ids(sandbox, "/Location?organization=100099001") == ["7d6c5b4a-1111-4222-8333-9999aaaabbbb"]
    assert sandbox.fhir("GET", "/Practitioner/10012345678").status_code == 200
