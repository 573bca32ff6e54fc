"""What the token source makes of the platform's answers; its behaviour on the wire is in the contract tests."""

from __future__ import annotations

from typing import Any

import pytest

from interface.outbound import Reply
from interface.satusehat.answers import classify
from interface.satusehat.client import SatusehatOptions
from interface.satusehat.oauth2 import DEFAULT_LIFE_S, MAX_LIFE_S, explain_refusal, parse_life_s
from internal.errors import CredentialsRefused, Transient


@pytest.mark.parametrize(("value", "life_s"), [
    ("3599", 3599.0), (3599, 3599.0), ("0", 0.0), ("-5", 0.0), ("1e9", MAX_LIFE_S), ("nan", DEFAULT_LIFE_S),
    ("inf", DEFAULT_LIFE_S), (None, DEFAULT_LIFE_S), ("soon", DEFAULT_LIFE_S), ([], DEFAULT_LIFE_S),
])
def test_life(value: Any, life_s: float) -> None:
    assert parse_life_s(value) == life_s


@pytest.mark.parametrize(("status", "body", "kind", "code"), [
    (401, b'{"ErrorCode":"invalid_client","Error":"ClientId is Invalid"}', CredentialsRefused, "credentials-refused"),
    (400, b'{"ErrorCode":"invalid_request","Error":"Required param : grant_type"}', CredentialsRefused,
     "credentials-refused"),
    (403, b'{"resourceType":"OperationOutcome","issue":[{"code":"x","details":{"text":"(RuleNumber: 20009)"}}]}',
     CredentialsRefused, "credentials-refused"),
    (401, b'{"fault":{"faultstring":"no apiproduct match found","detail":{"errorcode":"x"}}}', CredentialsRefused,
     "no-api-product"),
    (403, b"<html>403 Forbidden</html>", Transient, "token-http-403"),
    (503, b"no healthy upstream", Transient, "token-http-503"),
    (200, b"<html>login</html>", Transient, "token-reply-not-understood"),
    (200, b'{"access_token": ""}', Transient, "token-reply-not-understood"),
])
def test_refusals(status: int, body: bytes, kind: type[Exception], code: str) -> None:
    error = explain_refusal(classify(Reply(status, {}, body)))
    assert type(error) is kind and error.code == code


def test_options_never_show_a_secret() -> None:
    options = SatusehatOptions(base_url="http://127.0.0.1", organization_id="1", client_key=lambda: "KEY",
                               secret=lambda: "SECRET", proxy_url="http://user:pass@proxy")
    assert not any(word in repr(options) for word in ("KEY", "SECRET", "pass", "lambda"))
