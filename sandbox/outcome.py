"""The platform's ways to say no: OperationOutcome in its forms, Apigee faults, empty 404s.

Used by every handler. Imports `http11`. Changes when the platform's error shapes change.
Source: fact sheet satusehat.md sections 1 and 2.5.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from sandbox.http11 import Reply, build_json_reply

ISSUE_LIMIT = 500
PRIVACY_TEXT = "The operation did not return any information due to consent or privacy rules."
FORBIDDEN_TEXT = (
    "Operation cannot be performed due to business rules, consent or privacy rules, or access permission constraints."
)


@dataclass(frozen=True, slots=True)
class Issue:
    """One thing that is wrong; `of_store` marks what the FHIR store behind the validator says."""

    code: str
    text: str
    expression: str = ""
    diagnostics: str = ""
    of_store: bool = False


def rule_text(text: str, rule: int | None) -> str:
    """`text` with its RuleNumber appended, when there is one."""
    return f"{text} (RuleNumber: {rule})" if rule else text


def build_outcome(issues: list[Issue], status: int = 400) -> Reply:
    """An OperationOutcome with all issues: the store's form when only the store complains, else the validator's."""
    shown = issues[:ISSUE_LIMIT]
    if all(issue.of_store for issue in shown):
        body = {"issue": [_store_issue(issue) for issue in shown], "resourceType": "OperationOutcome"}
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        return Reply(status, text.encode(), "application/fhir+json;charset=utf-8")
    return build_json_reply(status, {"resourceType": "OperationOutcome", "text": {"status": "generated"},
                                     "issue": [_validator_issue(issue) for issue in shown]})


def _validator_issue(issue: Issue) -> dict[str, object]:
    text = f"{issue.text}: {issue.diagnostics}" if issue.diagnostics else issue.text
    found: dict[str, object] = {"severity": "error", "code": issue.code, "details": {"text": text}}
    if issue.expression:
        found["expression"] = [issue.expression]
    return found


def _store_issue(issue: Issue) -> dict[str, object]:
    found: dict[str, object] = {"code": issue.code, "details": {"text": issue.text}, "severity": "error"}
    if issue.diagnostics:
        found["diagnostics"] = issue.diagnostics
    if issue.expression:
        found["expression"] = [issue.expression]
    return dict(sorted(found.items()))


def build_one(code: str, text: str, rule: int | None = None, status: int = 400) -> Reply:
    """An OperationOutcome with a single validator issue."""
    return build_outcome([Issue(code, rule_text(text, rule))], status)


def build_suppressed() -> Reply:
    """200 with an OperationOutcome: nothing is shown for reasons of privacy. Source: fact sheet section 2.2."""
    issue = {"severity": "information", "code": "suppressed", "details": {"text": PRIVACY_TEXT}}
    return build_json_reply(200, {"resourceType": "OperationOutcome", "issue": [issue]})


def build_forbidden() -> Reply:
    """400 `forbidden`. Source: fact sheet section 2.5."""
    return build_one("forbidden", FORBIDDEN_TEXT)


def build_wrong_path() -> Reply:
    """404 with an empty body. Source: fact sheet section 2.5."""
    return Reply(404)


def build_token_refused(form: str, *, expired: bool) -> Reply:
    """401 for a bad token, as Apigee fault or as OperationOutcome. Source: fact sheet section 1."""
    if form == "outcome":
        return build_one("invalid-access-token", "Invalid Access Token.", status=401)
    code = "keymanagement.service.access_token_expired" if expired else "oauth.v2.InvalidAccessToken"
    text = "Access Token expired" if expired else "Invalid access token"
    challenge = f'Bearer realm="null",error="invalid_token",error_description="{code}: {text}"'
    fault = {"fault": {"faultstring": text, "detail": {"errorcode": code}}}
    return build_json_reply(401, fault, {"www-authenticate": challenge})
