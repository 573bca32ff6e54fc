"""Every kind of fault. Source: fact sheet section 8, point 9."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
import requests

from tests.contract.sandbox.sandbox_client import Sandbox, Study, build_observation, until

STORE = "/dicom/v1/dicomWeb/studies"
SEARCH = "/fhir-r4/v1/ServiceRequest"


def statuses(sandbox: Sandbox, number: int, path: str = "/ServiceRequest") -> list[int]:
    return [sandbox.fhir("GET", path).status_code for _ in range(number)]


@pytest.mark.parametrize(("chosen", "expected"), [
    ({}, [503] * 4), ({"nth": 2}, [200, 503, 200, 200]), ({"count": 2}, [503, 503, 200, 200]),
    ({"probability": 1}, [503] * 4), ({"probability": 0}, [200] * 4)])
def test_which_requests_are_spoilt(sandbox: Sandbox, chosen: dict[str, Any], expected: list[int]) -> None:
    sandbox.control("POST", "/faults", [{"method": "GET", "path": SEARCH, "status": 503, **chosen}])
    assert statuses(sandbox, 4) == expected
    assert sandbox.fhir("GET", "/Encounter").status_code == 200, "another path"
    listed = sandbox.control("GET", "/faults")
    assert [(one["matches"], one["hits"]) for one in listed] == [(4, expected.count(503))]
    assert sandbox.control("DELETE", "/faults") == []
    assert statuses(sandbox, 1) == [200]


def test_probability_with_a_seed_repeats(sandbox: Sandbox) -> None:
    runs = []
    for _ in range(2):
        sandbox.control("DELETE", "/faults")
        sandbox.control("POST", "/faults", [{"path": SEARCH, "status": 500, "probability": 0.5, "seed": 7}])
        runs.append(statuses(sandbox, 20))
    assert runs[0] == runs[1] and set(runs[0]) == {200, 500}


@pytest.mark.parametrize(("status", "content_type", "text"), [
    (401, "application/json", "Invalid access token"), (403, "text/html", "403 Forbidden"), (404, None, ""),
    (429, "application/json", "QuotaViolation"), (500, "text/plain", "Internal Server Error"),
    (502, "text/plain", "Bad Gateway"), (503, "text/plain", "no healthy upstream"),
    (504, "text/plain", "Gateway Timeout")])
def test_statuses_come_as_the_platform_sends_them(sandbox: Sandbox, status: int, content_type: str | None,
                                                  text: str) -> None:
    sandbox.control("POST", "/faults", [{"path": SEARCH, "status": status, "headers": {"Retry-After": "2"}}])
    answer = sandbox.fhir("GET", "/ServiceRequest")
    assert (answer.status_code, answer.headers.get("content-type")) == (status, content_type)
    assert text in answer.text and answer.headers["retry-after"] == "2"


def test_only_requests_whose_body_holds_a_text_and_they_arrive_whole(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [{"method": "POST", "path": "/fhir-r4/v1/Patient", "body_contains": "\"AB-1\"",
                                         "status": 503}])
    far = {"resourceType": "Patient", "text": "x" * 200_000, "id": "AB-1"}
    near = {"resourceType": "Patient", "id": "AB-1", "text": "x" * 200_000}
    statuses = [sandbox.fhir("POST", "/Patient", body).status_code for body in (far, near)]
    assert statuses[1] == 503 and statuses[0] != 503
    assert [(one["matches"], one["hits"]) for one in sandbox.control("GET", "/faults")] == [(1, 1)]


def test_own_body_and_query(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [
        {"path": SEARCH, "query_contains": "status=draft", "status": 422, "body": {"a": 1}},
        {"path": SEARCH, "status": 422, "body": "teks", "headers": {"Content-Type": "text/weird"}}])
    first = sandbox.fhir("GET", "/ServiceRequest?status=draft")
    second = sandbox.fhir("GET", "/ServiceRequest?status=active")
    assert first.json() == {"a": 1}
    assert (second.text, second.headers["content-type"]) == ("teks", "text/weird")


def test_a_refused_upload_stores_nothing_and_the_connection_lives(sandbox: Sandbox, study: Study) -> None:
    sandbox.control("POST", "/faults", [{"method": "POST", "path": STORE, "status": 502, "count": 1}])
    assert sandbox.push(study.files[0], study.id).status_code == 502
    assert sandbox.state()["instances"] == []
    assert sandbox.push(study.files[0], study.id).status_code == 200


def test_reset_in_the_middle_of_an_upload(sandbox: Sandbox, study: Study) -> None:
    sandbox.control("POST", "/faults", [{"method": "POST", "path": STORE, "reset": True, "count": 1,
                                         "after_bytes": 300}])
    with pytest.raises(requests.ConnectionError):
        sandbox.push(study.files[0], study.id)
    assert sandbox.state()["instances"] == []
    assert sandbox.push(study.files[0], study.id).status_code == 200


def test_store_then_reset_stores(sandbox: Sandbox, study: Study) -> None:
    sandbox.control("POST", "/faults", [{"path": STORE, "store_then_reset": True, "nth": 1},
                                        {"method": "POST", "path": "/fhir-r4/v1/Observation",
                                         "store_then_reset": True}])
    with pytest.raises(requests.ConnectionError):
        sandbox.push(study.files[0], study.id)
    assert [one["times_received"] for one in sandbox.state()["instances"]] == [1]
    assert sandbox.push(study.files[0], study.id).status_code == 200
    assert [one["times_received"] for one in sandbox.state()["instances"]] == [2]
    with pytest.raises(requests.ConnectionError):
        sandbox.fhir("POST", "/Observation", build_observation(study))
    assert len(sandbox.state()["resources"]["Observation"]) == 1


def test_a_delay_ends_and_the_platform_answers(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [{"path": SEARCH, "delay_s": 0.3}])
    began = time.monotonic()
    assert statuses(sandbox, 1) == [200]
    assert time.monotonic() - began >= 0.3
    sandbox.control("DELETE", "/faults")
    sandbox.control("POST", "/settings", {"latency_ms": 300})
    began = time.monotonic()
    assert statuses(sandbox, 1) == [200]
    assert time.monotonic() - began >= 0.3


def test_a_delay_holds_nobody_else_up(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [{"path": SEARCH, "delay_s": 600}])
    bearer = sandbox.bearer

    def wait_in_vain() -> None:
        with pytest.raises(requests.Timeout):
            requests.get(sandbox.url + SEARCH, headers=bearer, timeout=1)

    waiting = threading.Thread(target=wait_in_vain)
    waiting.start()
    until(lambda: sandbox.control("GET", "/faults")[0]["hits"] == 1, "the request is being held")
    assert sandbox.fhir("GET", "/Encounter").status_code == 200
    waiting.join(10)


def test_a_dripping_reply_is_slow_and_whole(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [{"path": SEARCH, "drip_bytes_per_s": 2000}])
    began = time.monotonic()
    answer = sandbox.fhir("GET", "/ServiceRequest")
    assert answer.json()["total"] == 0
    assert time.monotonic() - began >= len(answer.content) / 2000 * 0.9


def test_a_dripping_instance_arrives_whole(sandbox: Sandbox, study: Study) -> None:
    sandbox.push(study.files[0], study.id)
    sandbox.control("POST", "/faults", [{"method": "GET", "path": STORE, "drip_bytes_per_s": 20_000}])
    url = f"{sandbox.url}{STORE}/{study.uid}/series/{study.series}/instances/{study.sops[0]}"
    assert sandbox.session.get(url, headers=sandbox.bearer, timeout=30).content == study.files[0]


def test_a_status_without_a_body_leaves_the_connection_usable(sandbox: Sandbox) -> None:
    sandbox.control("POST", "/faults", [{"path": SEARCH, "status": 204, "body": "x", "count": 1}])
    assert statuses(sandbox, 2) == [204, 200]


@pytest.mark.parametrize("fault", [
    {}, {"status": 99}, {"status": "503"}, {"status": True}, {"path": 3, "status": 500}, {"colour": "red"},
    {"status": 500, "nth": 1, "count": 2}, {"status": 500, "nth": 0}, {"status": 500, "probability": 1.5},
    {"status": 500, "headers": {"a": "b\r\nc: d"}}, {"reset": "yes"}, {"delay_s": 10**9}, 5])
def test_bad_faults_are_refused_whole(sandbox: Sandbox, fault: Any) -> None:
    answer = sandbox.control("POST", "/faults", [{"status": 500, "path": "/"}, fault], status=400)
    assert answer["error"]
    assert sandbox.control("GET", "/faults") == []
