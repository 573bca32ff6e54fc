"""The control interface: orders, state, emptying, settings; and the documentation of all of it."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any

import pytest
import requests

from tests.contract.sandbox.sandbox_client import ACSN, ROOT, Sandbox, Study, build_imaging_study

DOCUMENT = (ROOT / "docs" / "sandbox.md").read_text("utf-8")


def test_an_order_creates_the_chain(sandbox: Sandbox) -> None:
    made = sandbox.order("O-1", patient_id="P01234567890", modality="MR", name="Embun Latihan", gender="female",
                         birth_date="1980-02-03", status="completed", authored_on="2024-05-06T07:08:09+07:00")
    resources = sandbox.state()["resources"]
    request, patient = resources["ServiceRequest"][0], resources["Patient"][0]
    assert re.fullmatch(r"1\d{10}", made["practitioner_id"])
    assert (request["id"], request["status"], request["authoredOn"]) == (
        made["service_request_id"], "completed", "2024-05-06T07:08:09+07:00")
    assert {"system": ACSN, "value": "O-1"}.items() <= request["identifier"][1].items()
    assert request["orderDetail"][0]["coding"][0]["code"] == "MR"
    assert request["encounter"] == {"reference": f"Encounter/{made['encounter_id']}"}
    assert (patient["id"], patient["gender"], patient["birthDate"]) == ("P01234567890", "female", "1980-02-03")
    assert sandbox.order("O-2", patient_id="P01234567890", name="Lain")["patient_id"] == "P01234567890"
    assert [one["name"][0]["text"] for one in sandbox.state()["resources"]["Patient"]] == ["Embun Latihan"]
    assert re.fullmatch(r"P\d{11}", sandbox.order("O-3")["patient_id"])


@pytest.mark.parametrize("fields", [
    {"accession_number": ""}, {"accession_number": 5}, {"status": "x"}, {"authored_on": "yesterday"},
    {"birth_date": "1980-02-30"}, {"gender": "L"}, {"patient_id": "a/b"}, {"colour": "red"}, {"modality": "ct scan"}])
def test_orders_that_are_refused(sandbox: Sandbox, fields: dict[str, Any]) -> None:
    answer = sandbox.control("POST", "/orders", {"accession_number": "X", **fields}, status=400)
    assert answer["error"]
    assert sandbox.state()["resources"] == {}


def test_delete_empties_everything(sandbox: Sandbox, study: Study) -> None:
    sandbox.push(study.files[0], study.id)
    sandbox.control("POST", "/faults", [{"path": "/none", "status": 500}])
    assert sandbox.control("DELETE", "") == {"deleted": True}
    state = sandbox.state()
    assert (state["resources"], state["created"], state["instances"], state["requests"]) == ({}, [], [], {})
    assert sandbox.control("GET", "/faults") == []
    assert not [path for path in (sandbox.data / "instances").rglob("*") if path.is_file()]
    assert sandbox.fhir("GET", f"/ImagingStudy?identifier={ACSN}%7CRAD2501020001").json()["total"] == 0
    assert Study(sandbox, "RAD2501020001").id, "no memory of the identifier"


def test_requests_are_counted_by_template(sandbox: Sandbox, study: Study) -> None:
    sandbox.fhir("GET", "/Patient/P1")
    sandbox.fhir("GET", "/Patient/P2")
    sandbox.fhir("GET", "/Nonsense/P2")
    sandbox.fetch_token()
    counts = sandbox.control("GET", "/counts")
    assert counts["requests"] == {
        "GET /fhir-r4/v1/Patient/{id}": 2, "GET (other path)": 1, "POST /oauth2/v1/accesstoken": 1,
        "POST /fhir-r4/v1/ImagingStudy": 1}
    assert counts["resources"]["ImagingStudy"] == 1 and counts["instances"] == counts["bytes"] == 0


def test_a_study_of_5000_instances(sandbox: Sandbox) -> None:
    order = sandbox.order("BIG")
    sops = [f"1.2.826.0.1.3680043.9.9999.1.{number}" for number in range(5000)]
    answer = sandbox.fhir("POST", "/ImagingStudy", build_imaging_study(order, "1.2.3", "1.2.3.4", sops))
    assert answer.status_code == 201
    listed = sandbox.state()["resources"]["ImagingStudy"][0]["series"][0]["instance"]
    assert [one["uid"] for one in listed] == sops


def test_settings_are_checked(sandbox: Sandbox) -> None:
    before = sandbox.control("GET", "/settings")
    for wrong in ({"index_delay_s": -1}, {"allow_duplicates": "yes"}, {"port": 1}, {"date_floor": 5},
                  {"auth_error_form": "x"}, {"token_ttl_s": True}, {"latency_ms": float("1e300")}, [1]):
        assert sandbox.control("POST", "/settings", wrong, status=400)["error"]
    assert sandbox.control("GET", "/settings") == before


def test_unknown_control_paths_name_the_known_ones(sandbox: Sandbox) -> None:
    assert "POST /_sandbox/orders" in sandbox.control("GET", "/nonsense", status=404)["error"]


def test_the_control_interface_needs_no_token_but_a_loopback_peer() -> None:
    from sandbox.control import is_loopback

    assert all(is_loopback(peer) for peer in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(peer) for peer in ("10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "localhost"))


def test_every_option_is_documented() -> None:
    from sandbox.faults import FIELDS
    from sandbox.options import CHANGEABLE, build_parser

    documented = set(re.findall(r"--[a-z][a-z-]+", DOCUMENT))
    existing = {name for action in build_parser()._actions for name in action.option_strings if name.startswith("--")}
    assert existing - {"--help"} <= documented
    assert documented <= existing
    for name in (*FIELDS, *CHANGEABLE):
        assert f"`{name}`" in DOCUMENT, name


def curl_examples() -> list[str]:
    return [line.replace("\\\n", " ") for block in re.findall(r"```sh\n(.*?)```", DOCUMENT, re.DOTALL)
            for line in re.findall(r"^curl (?:.*\\\n)*.*$", block, re.MULTILINE)]


def test_documented_curl_examples_work(sandbox: Sandbox) -> None:
    examples = curl_examples()
    assert len(examples) >= 8
    for example in examples:
        words = shlex.split(example)
        method, data, url, headers = "GET", None, "", {}
        for position, word in enumerate(words):
            if word == "-X":
                method = words[position + 1]
            elif word == "-d":
                data, method = words[position + 1], "POST" if method == "GET" else method
            elif word == "-H":
                name, _, value = words[position + 1].partition(": ")
                headers[name] = value.replace("$TOKEN", sandbox.bearer["Authorization"].split()[1])
            elif word.startswith("http://127.0.0.1:8899"):
                url = word.replace("http://127.0.0.1:8899", sandbox.url)
        if data is not None and data.startswith("{"):
            json.loads(data)
        if data is not None and "client_id" in data:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = requests.request(method, url, data=data, headers=headers, timeout=10)
        assert answer.ok, f"{example}: {answer.status_code} {answer.text}"
        if url.endswith("/revoke"):
            sandbox._token = ""
