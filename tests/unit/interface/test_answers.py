"""Every kind of answer, row by row: what it means, what it does to the job, and whether the whole lane waits."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interface.outbound import Reply
from interface.satusehat.answers import Family, Meaning, classify
from interface.satusehat.effects import EFFECTS, build_error
from internal.errors import UnknownOutcome
from internal.states import Later, Outcome, Refuse
from internal.worker import outcome_of

JSON, FHIR, XML, HTML, TEXT = ("application/json", "application/fhir+json", "application/dicom+xml", "text/html",
                               "text/plain")


def said(code: str, text: str) -> dict[str, Any]:
    return {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": code,
                                                            "details": {"text": text}}]}


def fault(text: str, code: str) -> dict[str, Any]:
    return {"fault": {"faultstring": text, "detail": {"errorcode": code}}}


STORED = {"00081199": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]}}]}}
FAILED = {"00081198": {"vr": "SQ", "Value": [{"00081155": {"vr": "UI", "Value": ["1.2.3"]},
                                              "00081197": {"vr": "US", "Value": [272]},
                                              "00090097": {"vr": "LT", "Value": ["Instance already exists"]}}]}}
EXISTS_XML = ('<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00081198" vr="SQ"><Item number="1">'
              '<DicomAttribute tag="00081155" vr="UI"><Value number="1">1.2.3</Value></DicomAttribute>'
              '<DicomAttribute tag="00090097" vr="LT"><Value number="1">already exists</Value></DicomAttribute>'
              "</Item></DicomAttribute></NativeDicomModel>")
NO_PRODUCT = fault("Invalid API call as no apiproduct match found",
                   "keymanagement.service.InvalidAPICallAsNoApiProductMatchFound")
BUNDLE = {"resourceType": "Bundle", "entry": []}

# status, content type, body, family, meaning, what the job does (None: the caller looks further), who waits
ROWS: list[tuple[int, str, Any, str, str, str | None, str]] = [
    (200, JSON, BUNDLE, "bundle", "ok", None, ""),
    (201, FHIR, {"resourceType": "ImagingStudy", "id": "x"}, "resource", "ok", None, ""),
    (200, JSON, [{"resourceType": "ImagingStudy", "id": "x"}], "resource", "ok", None, ""),
    (200, JSON, STORED, "dicom", "ok", None, ""),
    (202, JSON, STORED | FAILED, "dicom", "ok", None, ""),
    (200, XML, EXISTS_XML, "dicom", "ok", None, ""),
    (200, JSON, said("suppressed", "consent or privacy rules"), "operation-outcome", "suppressed", None, ""),
    (200, JSON, said("informational", "all fine"), "operation-outcome", "unreadable", "reply-not-understood", "job"),
    (200, JSON, "", "empty", "unreadable", "reply-not-understood", "job"),
    (204, "", "", "empty", "unreadable", "reply-not-understood", "job"),
    (200, JSON, '{"resourceType": "Bun', "broken", "unreadable", "reply-not-understood", "job"),
    (200, XML, EXISTS_XML[:90], "broken", "unreadable", "reply-not-understood", "job"),
    (200, XML, "<!DOCTYPE x [<!ENTITY a 'b'>]><NativeDicomModel/>", "broken", "unreadable", "reply-not-understood",
     "job"),
    (200, HTML, "<html>Login</html>", "html", "unreadable", "reply-not-understood", "job"),
    (200, JSON, "<html>Login</html>", "html", "unreadable", "reply-not-understood", "job"),
    (200, TEXT, "OK", "text", "unreadable", "reply-not-understood", "job"),
    (200, JSON, fault("x", "y"), "fault", "unreadable", "reply-not-understood", "job"),
    (200, JSON, {"ErrorCode": "e", "Error": "f"}, "error-code", "unreadable", "reply-not-understood", "job"),
    (200, JSON, {"new": "format"}, "json", "unreadable", "reply-not-understood", "job"),
    (302, HTML, "", "empty", "redirect", "http-302", "lane"),
    (400, JSON, said("value", "Code not found (RuleNumber: 10010)"), "operation-outcome", "refused", "rule-10010",
     "held"),
    (400, FHIR, said("structure", "unparseable_resource"), "operation-outcome", "refused", "http-400", "held"),
    (400, JSON, said("duplicate", "Found duplicate (RuleNumber: 20002)"), "operation-outcome", "duplicate",
     "duplicate", "held"),
    (400, HTML, "<html>Bad Request</html>", "html", "refused", "http-400", "held"),
    (401, JSON, fault("Access Token expired", "keymanagement.service.access_token_expired"), "fault", "token",
     "http-401", "lane"),
    (401, JSON, said("invalid-access-token", "Invalid Access Token."), "operation-outcome", "token", "http-401",
     "lane"),
    (401, "", "", "empty", "token", "http-401", "lane"),
    (401, JSON, NO_PRODUCT, "fault", "no-product", "no-api-product", "lane"),
    (403, HTML, "<html>403 Forbidden</html>", "html", "blocked", "http-403", "lane"),
    (403, JSON, said("forbidden", "not yours"), "operation-outcome", "refused", "http-403", "held"),
    (404, JSON, said("not-found", "no such"), "operation-outcome", "absent", None, ""),
    (404, "", "", "empty", "wrong-path", "http-404", "lane"),
    (404, HTML, "<html>Not Found</html>", "html", "wrong-path", "http-404", "lane"),
    (405, TEXT, "no", "text", "wrong-path", "http-405", "lane"),
    (408, TEXT, "slow", "text", "fault", "http-408", "job"),
    (409, JSON, FAILED, "dicom", "exists", "http-409", "held"),
    (409, XML, EXISTS_XML, "dicom", "exists", "http-409", "held"),
    (409, TEXT, "conflict", "text", "refused", "http-409", "held"),
    (410, JSON, said("deleted", "gone"), "operation-outcome", "absent", None, ""),
    (412, JSON, said("multiple", "more than one"), "operation-outcome", "duplicate", "duplicate", "held"),
    (413, HTML, "<html>Too Large</html>", "html", "refused", "http-413", "held"),
    (422, JSON, said("invalid", "no"), "operation-outcome", "refused", "http-422", "held"),
    (429, TEXT, "slow down", "text", "throttled", "http-429", "lane"),
    (429, JSON, fault("Spike arrest", "policies.ratelimit.SpikeArrestViolation"), "fault", "throttled", "http-429",
     "lane"),
    (500, JSON, said("exception", "oops"), "operation-outcome", "fault", "http-500", "job"),
    (500, JSON, fault("x", "steps.javascript.ScriptExecutionFailed"), "fault", "fault", "http-500", "job"),
    (502, HTML, "<html>Bad Gateway</html>", "html", "gateway", "http-502", "lane"),
    (503, TEXT, "no healthy upstream", "text", "unavailable", "http-503", "lane"),
    (503, "", "", "empty", "gateway", "http-503", "lane"),
    (504, TEXT, "upstream request timeout", "text", "gateway", "http-504", "lane"),
    (599, TEXT, "?", "text", "fault", "http-599", "job"),
    (777, TEXT, "?", "text", "fault", "http-777", "job"),
]


def reply(status: int, content_type: str, body: Any, **headers: str) -> Reply:
    raw = body if isinstance(body, str) else json.dumps(body)
    return Reply(status, {"content-type": content_type, **headers}, raw.encode())


def whom(outcome: Outcome) -> str:
    if isinstance(outcome, Refuse):
        return "held"
    assert isinstance(outcome, Later)
    return outcome.blame


@pytest.mark.parametrize(("status", "content_type", "body", "family", "meaning", "code", "who"), ROWS,
                         ids=[f"{row[0]}-{row[3]}-{row[4]}-{n}" for n, row in enumerate(ROWS)])
def test_the_table(
    status: int, content_type: str, body: Any, family: str, meaning: str, code: str | None, who: str,
) -> None:
    answer = classify(reply(status, content_type, body))
    assert (answer.body.family, answer.meaning) == (family, meaning)
    if code is None:
        return
    outcome = outcome_of(build_error(answer))
    assert isinstance(outcome, Later | Refuse)
    assert (outcome.code, whom(outcome)) == (code, who)


def test_every_meaning_and_family_has_rows_and_consequences() -> None:
    assert set(EFFECTS) == set(Meaning)
    assert {row[4] for row in ROWS} == set(Meaning)
    assert {row[3] for row in ROWS} == set(Family)


def test_the_rule_and_its_words_reach_the_operator() -> None:
    error = build_error(classify(reply(400, JSON, said("value", "Tanggal salah (RuleNumber: 10121)"))))
    outcome = outcome_of(error)
    assert isinstance(outcome, Refuse)
    assert outcome.code == "rule-10121" and "Tanggal salah" in outcome.reason


def test_retry_after_is_kept_and_a_slow_fault_comes_back_slowly() -> None:
    asked = outcome_of(build_error(classify(reply(429, TEXT, "", **{"retry-after": "7"}))))
    blocked = outcome_of(build_error(classify(reply(403, HTML, "<html></html>"))))
    assert isinstance(asked, Later) and isinstance(blocked, Later)
    assert asked.retry_after_s == 7
    assert blocked.retry_after_s is not None and blocked.retry_after_s >= 60


@given(st.integers(100, 999), st.sampled_from([JSON, FHIR, XML, HTML, TEXT, ""]), st.binary(max_size=200))
def test_no_answer_whatsoever_is_a_success_without_being_read(status: int, content_type: str, body: bytes) -> None:
    answer = classify(Reply(status, {"content-type": content_type}, body))
    assert len(answer.text) < 1000
    if answer.meaning is Meaning.OK:
        assert 200 <= status < 300 and answer.body.family in (Family.BUNDLE, Family.RESOURCE, Family.DICOM)
    elif 200 <= status < 300 and answer.meaning is not Meaning.SUPPRESSED:
        error = build_error(answer)
        assert isinstance(error, UnknownOutcome) and error.code == "reply-not-understood"
