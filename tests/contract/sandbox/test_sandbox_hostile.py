"""Requests nobody should send: each is answered or dropped, and the sandbox goes on."""

from __future__ import annotations

import json
import socket

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.contract.sandbox.sandbox_client import Sandbox, Study, make_instance, until
from tests.examples import examples

BAD_HEADS = [
    (b"nonsense\r\n\r\n", 400), (b"GET  / HTTP/1.1\r\n\r\n", 400), (b"GET / HTTP/2.0\r\n\r\n", 505),
    (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400), (b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nA: b\nB: c\r\n\r\n", 400), (b"\r\n\r\n", 400),
    (b"GET /" + b"x" * 10_000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nA: " + b"x" * 100_000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200 + b"\r\n", 431),
    (b"GET / HTTP/1.1\r\n" + b"x" * 1_000_000, 431),
    (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400), (b"POST / HTTP/1.1\r\nContent-Length: 1e9\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
    (b"POST /oauth2/v1/accesstoken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    (b"POST /oauth2/v1/accesstoken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcdef\r\n", 400),
    (b"POST /oauth2/v1/accesstoken HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 200, 431),
    (b"POST /oauth2/v1/accesstoken HTTP/1.1\r\nContent-Length: 1000000\r\n\r\n", 413),
]


@pytest.mark.parametrize(("data", "status"), BAD_HEADS)
def test_malformed_http_is_answered(sandbox: Sandbox, data: bytes, status: int) -> None:
    with socket.create_connection(sandbox.address, timeout=5) as sock:
        sock.sendall(data)
        assert sock.recv(65_536).startswith(b"HTTP/1.1 %d " % status)
    assert sandbox.fetch_token().status_code == 200


@pytest.mark.parametrize("path", [
    "/../../etc/passwd", "/fhir-r4/v1/../../../etc/passwd", "/fhir-r4/v1/Patient/..%2f..%2fetc%2fpasswd",
    "/fhir-r4/v1/Patient/%00", "/fhir-r4/v1/Patient/%ff%fe", "/dicom/v1/dicomWeb/studies/../../x",
    "/dicom/v1/dicomWeb/studies/1/series/..%2f/instances/..%2f..%2fsandbox.db", "//", "/%", "*",
    "/_sandbox/../state", "http://example.org/fhir-r4/v1/x", "/fhir-r4/v1/Patient/" + "9" * 5000])
def test_paths_lead_nowhere(sandbox: Sandbox, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\nAuthorization: {sandbox.bearer['Authorization']}\r\nConnection: close\r\n\r\n"
    answer = sandbox.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 404 "), answer[:200]
    assert b"root:" not in answer and b"SQLite" not in answer


def test_several_requests_in_one_packet(sandbox: Sandbox) -> None:
    one = f"GET /fhir-r4/v1/dcm_cfg HTTP/1.1\r\nAuthorization: {sandbox.bearer['Authorization']}\r\n"
    answer = sandbox.raw((one + "\r\n" + one + "Connection: close\r\n\r\n").encode())
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"SATUSEHAT_CLIENT_ENABLE") == 2


def test_http_1_0_closes_unless_asked_not_to(sandbox: Sandbox) -> None:
    assert sandbox.raw(b"GET /nowhere HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 404 ")
    with socket.create_connection(sandbox.address, timeout=5) as sock:
        for _ in range(2):
            sock.sendall(b"GET /nowhere HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert sock.recv(1000).startswith(b"HTTP/1.1 404 ")


def test_more_connections_than_it_serves_are_turned_away(sandbox: Sandbox) -> None:
    held = []
    try:
        refused = False
        for _ in range(300):
            sock = socket.create_connection(sandbox.address, timeout=5)
            held.append(sock)
            try:
                sock.sendall(b"GET /nowhere HTTP/1.1\r\n\r\n")
                refused = sock.recv(100).startswith(b"HTTP/1.1 503 ")
            except ConnectionError:
                refused = True
            if refused:
                break
        assert refused
    finally:
        for sock in held:
            sock.close()
    until(lambda: sandbox.raw(b"GET /x HTTP/1.1\r\nConnection: close\r\n\r\n").startswith(b"HTTP/1.1 404 "),
          "the places are free again")


def test_a_sequence_nested_without_end_is_refused(sandbox: Sandbox, study: Study) -> None:
    data = study.files[0]
    start = 144 + int.from_bytes(data[140:144], "little")
    opened = b"\x08\x00\x05\x00SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 5000
    answer = sandbox.push(data[:start] + opened + data[start:], study.id)
    assert answer.status_code == 409 and "nested" in answer.text


quick = settings(max_examples=examples(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["resourceType", "identifier", "system", "value", "coding", "code", "reference", "series",
                         "subject", "status", "basedOn", "modality", "period", "start", "op", "path", "x"]),
        inner, max_size=5), max_leaves=12)
entry_requests = st.fixed_dictionaries({"method": st.sampled_from(["POST", "PUT"]), "url": json_values})
entries = st.fixed_dictionaries({"fullUrl": st.uuids().map("urn:uuid:{}".format), "resource": json_values,
                                 "request": json_values | entry_requests})
bundles = st.builds(lambda listed: {"resourceType": "Bundle", "type": "transaction", "entry": listed},
                    st.lists(entries | json_values, max_size=3))


@quick
@given(value=json_values, type_name=st.sampled_from(["ImagingStudy", "Encounter", "Procedure", "Observation"]))
def test_any_json_gets_a_4xx_and_never_a_crash(sandbox: Sandbox, value: object, type_name: str) -> None:
    body = {**value, "resourceType": type_name} if isinstance(value, dict) else value
    for method, path in (("POST", f"/{type_name}"), ("POST", ""), ("PATCH", f"/{type_name}/1")):
        answer = sandbox.session.request(
            method, f"{sandbox.url}/fhir-r4/v1{path}", data=json.dumps(body),
            headers={**sandbox.bearer, "Content-Type": "application/json"})
        assert answer.status_code in (201, 400, 404), answer.text


@quick
@given(value=bundles)
def test_any_bundle_gets_a_4xx(sandbox: Sandbox, value: object) -> None:
    assert sandbox.fhir("POST", "", json.loads(json.dumps(value).replace("NaN", "1").replace("Infinity", "1"))
                        ).status_code in (200, 400)


@quick
@given(path=st.sampled_from(["orders", "faults", "privacy", "resources", "settings"]), value=json_values)
def test_any_json_to_the_control_interface(sandbox: Sandbox, path: str, value: object) -> None:
    answer = sandbox.session.post(f"{sandbox.url}/_sandbox/{path}", data=json.dumps(value))
    assert answer.status_code in (200, 201, 400), answer.text


@quick
@given(mutations=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), min_size=1, max_size=6),
       length=st.integers(0, 700))
def test_any_damaged_file_is_stored_or_refused(sandbox: Sandbox, mutations: list[tuple[int, int]], length: int) -> None:
    sandbox.control("POST", "/settings", {"strict_imagingstudy_id": False})
    data = bytearray(make_instance("1.2.3", "1.2.3.4", "1.2.3.4.5"))
    for at, value in mutations:
        data[at % len(data)] = value
    assert sandbox.push(bytes(data[:length or None])).status_code in (200, 409)


def test_no_internal_error_was_met(running: Sandbox) -> None:
    """Runs last in this file: everything above has passed without reaching the handler of last resort."""
    assert [line for line in running.errors if "internal error" in line] == []
