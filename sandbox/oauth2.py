"""Tokens: issue, check, revoke. First stop of every client.

Imports `database`, `http11`, `options`, `outcome`. Changes when the platform's OAuth2 changes.
Source: fact sheet satusehat.md section 1.
"""

from __future__ import annotations

import hmac
import secrets
import string

from sandbox.database import Database, now_ms
from sandbox.http11 import HttpRefused, Reply, Request, build_json_reply, parse_pairs
from sandbox.options import CLIENT_ID, CLIENT_SECRET, Options
from sandbox.outcome import build_token_refused

FORM_LIMIT_BYTES = 64 * 1024
TOKEN_LENGTH = 28
_ALPHABET = string.ascii_letters + string.digits


class TokenDesk:
    """Issues and checks access tokens; they survive a restart."""

    def __init__(self, database: Database, options: Options) -> None:
        self._database = database
        self._options = options
        self._expires_at: dict[str, int] = dict(database.query("SELECT token, expires_at FROM token"))

    def answer(self, request: Request) -> Reply:
        """`POST /oauth2/v1/accesstoken?grant_type=client_credentials` with the credentials in the form body."""
        form = dict(parse_pairs(_read_form(request)))
        if dict(request.parameters()).get("grant_type") != "client_credentials":
            return _refusal(400, "invalid_request", "Required param : grant_type")
        if not hmac.compare_digest(form.get("client_id", "").encode(), CLIENT_ID.encode()):
            return _refusal(401, "invalid_client", "ClientId is Invalid")
        if not hmac.compare_digest(form.get("client_secret", "").encode(), CLIENT_SECRET.encode()):
            return _refusal(401, "invalid_client", "Client credentials are invalid")
        return self._issue()

    def _issue(self) -> Reply:
        token = "".join(secrets.choice(_ALPHABET) for _ in range(TOKEN_LENGTH))
        issued_at, ttl_s = now_ms(), self._options.token_ttl_s
        expires_at = issued_at + ttl_s * 1000
        with self._database.transaction():
            self._database.query("DELETE FROM token WHERE expires_at < ?", (issued_at - 86_400_000,))
            self._database.query("INSERT INTO token VALUES (?, ?)", (token, expires_at))
        self._expires_at[token] = expires_at
        return build_json_reply(200, {
            "refresh_token_expires_in": "0", "api_product_list": "[api-satusehat-sandbox]",
            "api_product_list_json": ["api-satusehat-sandbox"], "organization_name": "ihs-sandbox-1",
            "developer.email": "sandbox@example.id", "token_type": "BearerToken", "issued_at": str(issued_at),
            "client_id": CLIENT_ID, "access_token": token, "application_name": "00000000-0000-4000-8000-000000000000",
            "scope": "", "expires_in": str(ttl_s), "refresh_count": "0", "status": "approved"})

    def refusal(self, request: Request) -> Reply | None:
        """None when the request carries a live token, else the 401 to send."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        expires_at = self._expires_at.get(token.strip()) if scheme.lower() == "bearer" else None
        if expires_at is not None and now_ms() < expires_at:
            return None
        return build_token_refused(self._options.auth_error_form, expired=expires_at is not None)

    def revoke_all(self) -> int:
        """Make every token issued so far invalid; returns how many there were."""
        with self._database.transaction():
            self._database.query("DELETE FROM token")
            count = len(self._expires_at)
            self._expires_at.clear()
        return count


def _read_form(request: Request) -> str:
    try:
        return request.body.read_all(FORM_LIMIT_BYTES).decode("utf-8")
    except UnicodeDecodeError as error:
        raise HttpRefused(400, "the form is not UTF-8") from error


def _refusal(status: int, code: str, text: str) -> Reply:
    return build_json_reply(status, {"ErrorCode": code, "Error": text})
