"""Every family of refusals; nothing refused is stored. Source: fact sheet section 2.6, satusehat_rules.json."""

from __future__ import annotations

import copy
import datetime
from collections.abc import Callable
from typing import Any

import pytest

from tests.contract.sandbox.sandbox_client import ACSN, Sandbox, Study, build_observation, build_report

Change = Callable[[dict[str, Any]], object]


def put(path: str, value: Any) -> Change:
    """A change that sets `path` (dots, numbers for array positions) to `value`."""
    def change(resource: dict[str, Any]) -> None:
        target: Any = resource
        *names, last = [int(name) if name.isdigit() else name for name in path.split(".")]
        for name in names:
            target = target[name]
        target[last] = value
    return change


def drop(name: str) -> Change:
    return lambda resource: resource.pop(name)


def refused(sandbox: Sandbox, type_name: str, resource: dict[str, Any]) -> str:
    before = sandbox.control("GET", "/counts")["resources"]
    answer = sandbox.fhir("POST", f"/{type_name}", resource)
    assert answer.status_code == 400, answer.text
    assert sandbox.control("GET", "/counts")["resources"] == before
    return answer.text


TOMORROW = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=2)).isoformat(timespec="seconds")

IMAGING_STUDY: list[tuple[Change, str]] = [
    (drop("identifier"), "10150"), (drop("status"), "10151"), (drop("modality"), "10152"), (drop("subject"), "10153"),
    (drop("basedOn"), "10154"),
    (put("status", "nonsense"), "Code not found: 'nonsense'"),
    (put("modality.0.code", "DR"), "Code not found: 'DR'"), (put("modality.0.system", "http://x"), "10152"),
    (put("series.0.modality.code", "XYZ"), "10152"),
    (put("started", "2025-01-02T03:04:05"), "10424"), (put("started", "2025-13-02"), "10424"),
    (put("started", "20250102"), "10424"), (put("started", TOMORROW), "must not be in the future"),
    (put("started", "2014-06-02"), "must not be before 2014-06-03"), (put("started", "1999"), "10424"),
    (put("series.0.started", "2025-01-02T00:00:00"), "10424"),
    (put("identifier.0.system", "http://sys-ids.kemkes.go.id/acsn/100000001"), "10200"),
    (put("identifier.0.value", ""), "must not be empty"), (put("identifier.1.value", "1.2.3"), "urn:oid"),
    (put("identifier.0", {"system": ACSN}), "10150"),
    (put("subject.reference", "Patient/P09999999999"), "20007"),
    (put("subject.reference", "nonsense"), "Invalid reference"), (put("subject", {"display": "x"}), "10153"),
    (put("basedOn.0.reference", "Encounter/x"), "10154"),
    (put("basedOn", []), "expected an array of Reference): []"), (put("series", {}), "unparseable_resource"),
    (put("subject", []), "expected a Reference object): []"), (put("description", ""), "must not be empty"),
    (put("description", None), "unparseable_resource"), (put("description", 5), "20008"),
    (put("numberOfSeries", "1"), "Integer formatted as a string"), (put("numberOfSeries", -1), "Invalid decimal"),
    (put("series.0.number", 1.5), "Invalid decimal"), (put("series.0.instance.0.number", -1), "Invalid decimal"),
    (put("series.0", {"number": 1}), "missing required field"), (put("colour", "red"), "unknown field"),
    (put("series.0.instance.0.uid", "a b"), "Invalid id"), (put("modality", {"code": "CT"}), "expected an array"),
    (put("series.0.instance.0.sopClass.system", "http://x"), "Invalid coding system"),
]


@pytest.mark.parametrize(("change", "expected"), IMAGING_STUDY)
def test_imaging_study(sandbox: Sandbox, study: Study, change: Change, expected: str) -> None:
    resource = study.resource()
    put("identifier.0.value", "OTHER")(resource)
    del resource["identifier"][1]
    assert sandbox.fhir("POST", "/ImagingStudy", resource).status_code == 201, "valid before it is spoilt"
    resource = {**study.resource(), "identifier": [
        {"system": ACSN, "value": "THIRD"}, {"system": "urn:dicom:uid", "value": "urn:oid:1.2.3.4"}]}
    change(resource)
    assert expected in refused(sandbox, "ImagingStudy", resource)


@pytest.mark.parametrize("started", ["2025", "2025-01", "2025-01-02", "2025-01-02T03:04:05+07:00",
                                     "2025-01-02T03:04:05Z", "2014-06-03", None])
def test_dates_that_are_accepted(sandbox: Sandbox, study: Study, started: str | None) -> None:
    resource = {**study.resource(), "id": study.id, "started": started}
    if started is None:
        del resource["started"]
    answer = sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", resource)
    assert answer.status_code == 200, answer.text


def test_the_date_floor_can_be_moved(sandbox: Sandbox, study: Study) -> None:
    old = {**study.resource(), "id": study.id, "started": "2001-05-05"}
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", old).status_code == 400
    sandbox.control("POST", "/settings", {"date_floor": "2000-01-01"})
    assert sandbox.fhir("PUT", f"/ImagingStudy/{study.id}", old).status_code == 200


def test_all_problems_are_named_at_once(sandbox: Sandbox, study: Study) -> None:
    resource = {"resourceType": "ImagingStudy", "started": "yesterday", "numberOfSeries": "3"}
    text = refused(sandbox, "ImagingStudy", resource)
    for rule in (10150, 10151, 10152, 10153, 10154, 10424):
        assert f"RuleNumber: {rule}" in text
    assert "Integer formatted as a string" in text


SERVICE_REQUEST = [
    (drop("status"), "10065"), (drop("intent"), "10063"), (drop("code"), "10060"), (drop("subject"), "10141"),
    (drop("encounter"), "10142"), (drop("requester"), "10376"), (drop("performer"), "10377"),
    (put("intent", "wish"), "10063"), (put("priority", "now"), "10066"),
    (put("code.coding.0.code", "24648-9"), "10060"), (put("code.coding.0.system", "http://x"), "10060"),
    (put("code", {"text": "Foto"}), "10060"), (put("authoredOn", TOMORROW), "10361"),
    (put("occurrenceDateTime", "2025-02-30"), "10360"), (put("requester.reference", "Organization/100099001"), "10376"),
    (put("performer.0.reference", "Patient/P01"), "10377"), (put("orderDetail.0.coding.0.system", "http://x"), "10427"),
    (put("reasonCode.0.coding", [{"system": "http://x", "code": "1"}]), "10064"),
    (put("identifier.0.system", "http://example.org/order"), "10415"),
    (put("identifier.1.system", "http://sys-ids.kemkes.go.id/acsn/1"), "10200"),
    (put("doNotPerform", "false"), "Invalid boolean"),
]
ENCOUNTER = [
    (drop("identifier"), "10117"), (drop("status"), "Encounter.status"), (drop("class"), "Encounter.class"),
    (drop("subject"), "10118"), (drop("participant"), "10119"), (drop("location"), "10120"), (drop("period"), "10123"),
    (drop("statusHistory"), "10122"), (drop("serviceProvider"), "Reference is mandatory : Encounter.serviceProvider"),
    (put("class.code", "XXX"), "Code not found: 'XXX'"), (put("status", "finished"), "10121"),
    (put("status", "finished"), "10457"), (put("statusHistory.0.period", {"start": "2025-01-01"}), "10122"),
    (put("period", {"start": "2025-01-02", "end": "2025-01-01"}), "fhirpath-constraint-violation-Encounter.period"),
    (put("location.0.location.reference", "Location/none"), "20007"),
    (put("identifier.0.system", "http://sys-ids.kemkes.go.id/encounter/1"), "10200"),
]
OBSERVATION = [
    (drop("status"), "10008"), (drop("code"), "10010"), (drop("subject"), "10129"), (drop("encounter"), "10130"),
    (drop("performer"), "10383"), (put("performer", [{"reference": "Organization/100099001"}]), "10383"),
    (put("code.coding.0.code", "XX"), "Code not found: 'XX' in system: http://loinc.org (RuleNumber: 10010)"),
    (put("derivedFrom.0.reference", "Patient/x"), "10428"), (put("bodySite", [{"text": "x"}]), "unparseable_resource"),
    (put("identifier", [{"system": "http://x", "value": "1"}]), "10441"), (put("issued", "2025-01-02"), "10296"),
    (put("effectiveDateTime", TOMORROW), "10295"),
]
REPORT = [
    (drop("identifier"), "10432"), (drop("status"), "10072"), (drop("code"), "10071"), (drop("subject"), "10144"),
    (drop("encounter"), "10145"), (drop("performer"), "10384"), (drop("result"), "10385"), (drop("basedOn"), "10387"),
    (put("category.0.coding.0.code", "XXX"), "10073"), (put("issued", TOMORROW), "10359"),
    (put("imagingStudy.0.reference", "ImagingStudy/none"), "20007"),
    (put("identifier.0.system", "http://sys-ids.kemkes.go.id/diagnostic/100099001"), "10432"),
]
PATIENT = [
    (drop("identifier"), "10166"), (drop("name"), "10168"), (drop("gender"), "10413"), (drop("birthDate"), "10397"),
    (drop("multipleBirthInteger"), "10167"), (put("gender", "L"), "10413"), (put("birthDate", "1/2/1990"), "10397"),
]
CASES = [(name, change, expected) for name, cases in {
    "ServiceRequest": SERVICE_REQUEST, "Encounter": ENCOUNTER, "Observation": OBSERVATION, "DiagnosticReport": REPORT,
    "Patient": PATIENT}.items() for change, expected in cases]


def valid_resources(study: Study, state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """One valid resource per type, each with identifiers of its own."""
    found = {name: copy.deepcopy(state["resources"][name][0]) for name in ("ServiceRequest", "Encounter", "Patient")}
    found["Observation"] = build_observation(study)
    found["DiagnosticReport"] = build_report(study, state["resources"]["Observation"][0]["id"])
    return found


@pytest.mark.parametrize(("type_name", "change", "expected"), CASES)
def test_other_resources(sandbox: Sandbox, study: Study, type_name: str, change: Change, expected: str) -> None:
    sandbox.control("POST", "/settings", {"allow_duplicates": True})
    assert sandbox.fhir("POST", "/Observation", build_observation(study)).status_code == 201
    resource = valid_resources(study, sandbox.state())[type_name]
    answer = sandbox.fhir("POST", f"/{type_name}", resource)
    assert answer.status_code == 201, f"valid before it is spoilt: {answer.text}"
    change(resource)
    assert expected in refused(sandbox, type_name, resource)


def test_an_encounter_may_not_end_before_it_was_created_to_start(sandbox: Sandbox) -> None:
    sandbox.order("E-1")
    encounter = sandbox.state()["resources"]["Encounter"][0]
    encounter["period"] = {"start": "2024-01-01", "end": "2024-01-02"}
    answer = sandbox.fhir("PUT", f"/Encounter/{encounter['id']}", encounter)
    assert answer.status_code == 400 and "fhirpath-constraint-violation-Encounter.period" in answer.text


@pytest.mark.parametrize(("body", "rule"), [
    (b"{", "20006"), (b"\xff", "20005"), (b"[" * 100_000, "20006"), (b'{"a": NaN}', "20006"), (b"[]", "20008"),
    (b'{"resourceType": "Patient"}', "20008"), (b'"\\ud800"', "20006"), (b"", "20006")])
def test_bodies_that_are_no_resource(sandbox: Sandbox, body: bytes, rule: str) -> None:
    answer = sandbox.session.post(f"{sandbox.url}/fhir-r4/v1/ImagingStudy", data=body,
                                  headers={**sandbox.bearer, "Content-Type": "application/json"})
    assert answer.status_code == 400 and rule in answer.text


def test_other_content_types_and_too_much(sandbox: Sandbox) -> None:
    url = f"{sandbox.url}/fhir-r4/v1/ImagingStudy"
    assert sandbox.session.post(url, data=b"{}", headers={**sandbox.bearer, "Content-Type": "text/plain"}
                                ).status_code == 415
    big = b'{"resourceType":"ImagingStudy","description":"' + b"x" * (10 * 1024 * 1024) + b'"}'
    assert sandbox.session.post(url, data=big, headers={**sandbox.bearer, "Content-Type": "application/json"}
                                ).status_code == 413
