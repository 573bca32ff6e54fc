"""The classification table: what each recorded or feared answer means, and that nothing is left without a meaning."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.outbound import Reply
from interface.satusehat.answers import Family, Meaning, classify, redact


def reply(status: int, body: Any = "", content_type: str = "", **headers: str) -> Reply:
    data = body if isinstance(body, bytes) else (body if isinstance(body, str) else json.dumps(body)).encode()
    return Reply(status, {"content-type": content_type, **headers}, data)


def outcome(code: str, text: str = "", **more: Any) -> dict[str, Any]:
    issue = {"severity": "error", "code": code, "details": {"text": text}, **more}
    return {"resourceType": "OperationOutcome", "issue": [issue]}


NO_PRODUCT = "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound"


def fault(code: str) -> dict[str, Any]:
    return {"fault": {"faultstring": "x", "detail": {"errorcode": code}}}


STORED = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["'1.2.3'"]}}]}}
FAILED = {"00081198": {"vr": "SQ", "Value": [{
    "00081155": {"vr": "UI", "Value": ["1.2.3"]}, "00081197": {"vr": "US", "Value": [272]},
    "00090097": {"vr": "LT", "Value": ["Instance already exists: x"]}}]}}
OTHER = {"00081198": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}
XML = """<?xml version="1.0"?><NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">
<DicomAttribute tag="00081198" vr="SQ"><Item number="1">
<DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.3</Value></DicomAttribute>
<DicomAttribute tag="00090097" vr="LT" privateCreator="GOOGLE"><Value number="1">it already exists</Value>
</DicomAttribute>
</Item></DicomAttribute></NativeDicomModel>"""
BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;">]><NativeDicomModel>&b;</NativeDicomModel>'


@pytest.mark.parametrize(("answer", "meaning", "family"), [
    (reply(200, {"resourceType": "Bundle"}), Meaning.OK, Family.BUNDLE),
    (reply(201, {"resourceType": "ImagingStudy", "id": "x"}), Meaning.OK, Family.RESOURCE),
    (reply(200, STORED), Meaning.OK, Family.DICOM),
    (reply(200, [STORED]), Meaning.OK, Family.DICOM),
    (reply(200, outcome("suppressed")), Meaning.SUPPRESSED, Family.OUTCOME),
    (reply(200, outcome("value")), Meaning.UNREADABLE, Family.OUTCOME),
    (reply(200), Meaning.UNREADABLE, Family.EMPTY),
    (reply(200, "<html>x</html>"), Meaning.UNREADABLE, Family.HTML),
    (reply(200, "{cut"), Meaning.UNREADABLE, Family.BROKEN),
    (reply(200, "cut", "application/json"), Meaning.UNREADABLE, Family.BROKEN),
    (reply(200, "[" * 100_000), Meaning.UNREADABLE, Family.BROKEN),
    (reply(200, "ok"), Meaning.UNREADABLE, Family.TEXT),
    (reply(200, {"a": 1}), Meaning.UNREADABLE, Family.JSON),
    (reply(200, BOMB), Meaning.UNREADABLE, Family.BROKEN),
    (reply(200, "<a><b>"), Meaning.UNREADABLE, Family.BROKEN),
    (reply(302), Meaning.REDIRECT, Family.EMPTY),
    (reply(401, fault("oauth.v2.InvalidAccessToken")), Meaning.TOKEN, Family.FAULT),
    (reply(401, outcome("invalid-access-token", "Invalid Access Token.")), Meaning.TOKEN, Family.OUTCOME),
    (reply(401, fault(NO_PRODUCT)), Meaning.NO_PRODUCT, Family.FAULT),
    (reply(401, **{"www-authenticate": f'Bearer error="{NO_PRODUCT}"'}), Meaning.NO_PRODUCT, Family.EMPTY),
    (reply(401, {"ErrorCode": "invalid_client", "Error": "ClientId is Invalid"}), Meaning.TOKEN, Family.ERROR_CODE),
    (reply(403, "<html>403 Forbidden</html>"), Meaning.BLOCKED, Family.HTML),
    (reply(403, outcome("forbidden", "business rules")), Meaning.REFUSED, Family.OUTCOME),
    (reply(400, outcome("duplicate", "Found duplicate resource: Encounter")), Meaning.DUPLICATE, Family.OUTCOME),
    (reply(400, outcome("value", "Found it (RuleNumber: 20002)")), Meaning.DUPLICATE, Family.OUTCOME),
    (reply(412), Meaning.DUPLICATE, Family.EMPTY),
    (reply(400, outcome("value", "x (RuleNumber: 10154)")), Meaning.REFUSED, Family.OUTCOME),
    (reply(404), Meaning.WRONG_PATH, Family.EMPTY),
    (reply(404, outcome("not-found")), Meaning.ABSENT, Family.OUTCOME),
    (reply(410), Meaning.ABSENT, Family.EMPTY),
    (reply(409, FAILED), Meaning.EXISTS, Family.DICOM),
    (reply(409, XML), Meaning.EXISTS, Family.DICOM),
    (reply(409, OTHER), Meaning.REFUSED, Family.DICOM),
    (reply(409, "x"), Meaning.REFUSED, Family.TEXT),
    (reply(413), Meaning.REFUSED, Family.EMPTY),
    (reply(429), Meaning.THROTTLED, Family.EMPTY),
    (reply(503, "no healthy upstream"), Meaning.UNAVAILABLE, Family.TEXT),
    (reply(503, "upstream connect error"), Meaning.GATEWAY, Family.TEXT),
    (reply(504, "Gateway Timeout"), Meaning.GATEWAY, Family.TEXT),
])
def test_table(answer: Reply, meaning: Meaning, family: Family) -> None:
    found = classify(answer)
    assert (found.meaning, found.body.family) == (meaning, family)


@given(st.integers(0, 999), st.binary(max_size=200) | st.text(max_size=100).map(str.encode),
       st.sampled_from(["", "application/json", "text/html; charset=x"]))
def test_every_answer_has_a_meaning_and_only_2xx_is_ok(status: int, body: bytes, content_type: str) -> None:
    found = classify(Reply(status, {"content-type": content_type}, body))
    assert (found.meaning is Meaning.OK) <= (200 <= status < 300)
    assert len(found.text) < 700 and "\n" not in found.text


json_value = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(
    inner, max_size=3) | st.dictionaries(st.sampled_from(
        ["resourceType", "issue", "details", "text", "code", "fault", "detail", "ErrorCode", "00081199", "00081198",
         "Value", "00081155", "00090097", "expression"]), inner, max_size=4), max_leaves=15)


@given(st.sampled_from([200, 400, 401, 409, 503]), json_value)
def test_any_json_is_read_without_a_fault(status: int, value: Any) -> None:
    classify(reply(status, value, "application/json"))


def test_store_replies_name_their_instances() -> None:
    stored, failed = classify(reply(200, STORED)).body.store, classify(reply(409, XML)).body.store
    assert stored is not None and stored.stored == {"1.2.3"} and not stored.failed
    assert failed is not None and failed.failed == {"1.2.3": "it already exists"} and not failed.stored


def test_rule_number_text_and_element_reach_people() -> None:
    answer = classify(reply(400, outcome("value", "Reference is mandatory (RuleNumber: 10154)",
                                         expression=["ImagingStudy.basedOn"], diagnostics="missing")))
    assert answer.code == "rule-10154"
    assert answer.text == "HTTP 400: Reference is mandatory (RuleNumber: 10154) missing [ImagingStudy.basedOn]"


@pytest.mark.parametrize(("text", "expected"), [
    ("NIK 3171010101010001.", "NIK [number hidden]."),
    ("uid 1.2.840.3171010101010001.5", "uid 1.2.840.3171010101010001.5"),
    ("Patient/P01234567890 x", "Patient/P[hidden] x"),
    ("Patient/100000030009", "Patient/[hidden]"),
    ("Bearer abcdefgh1234", "Bearer [hidden]"),
    ("a\r\nb\x1b[0m", "a b [0m"),
    ("<script>alert(1)</script>", "<script>alert(1)</script>"),
])
def test_redaction(text: str, expected: str) -> None:
    assert redact(text) == expected
