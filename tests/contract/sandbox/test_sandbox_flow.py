"""The whole imaging chain as the router walks it, and the state it leaves behind."""

from __future__ import annotations

import hashlib

from tests.contract.sandbox.sandbox_client import ACSN, Sandbox, Study


def test_order_register_push_and_state(sandbox: Sandbox) -> None:
    study = Study(sandbox, "RAD1", instances=3)
    for data in study.files:
        answer = sandbox.push(data, study.id)
        assert answer.status_code == 200, answer.text
    found = sandbox.fhir("GET", f"/ServiceRequest?identifier={ACSN}%7CRAD1&_sort=-_lastUpdated").json()
    assert [entry["resource"]["id"] for entry in found["entry"]] == [study.order["service_request_id"]]
    state = sandbox.state()
    assert [one["id"] for one in state["resources"]["ImagingStudy"]] == [study.id]
    assert {one["resourceType"] for one in state["created"]} == {
        "Patient", "Practitioner", "Encounter", "ServiceRequest", "ImagingStudy"}
    assert {(one["sop_uid"], one["study_uid"], one["series_uid"], one["imaging_study_id"], one["sha256"],
             one["bytes"], one["times_received"]) for one in state["instances"]} == {
        (sop, study.uid, study.series, study.id, hashlib.sha256(data).hexdigest(), len(data), 1)
        for sop, data in zip(study.sops, study.files, strict=True)}
    assert state["requests"]["POST /dicom/v1/dicomWeb/studies"] == 3
    assert state["requests"]["GET /fhir-r4/v1/ServiceRequest"] == 1
