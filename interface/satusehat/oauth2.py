"""The access token of one client at one base URL: one cached, refreshed early, one request however many ask.

`client` takes a token before each request and drops it after a 401. Imports outbound, answers and internal.errors.
Changes when the platform's OAuth2 service changes. Source: RFC 6749 4.4; satusehat facts 1.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from interface.outbound import Deadline, Session
from interface.satusehat.answers import Answer, Family, Meaning, classify
from internal.errors import CredentialsRefused, Transient

REFRESH_SHARE = 0.8
DEFAULT_LIFE_S = 300.0
MAX_LIFE_S = 24 * 3600.0
SLOW_RETRY_S = 300.0

_TOKEN = re.compile(r"[!-~]{1,8192}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who we are; `secret` reveals the client secret only while the request is being written."""

    client_key: Callable[[], str]
    secret: Callable[[], str]


@dataclass(frozen=True, slots=True)
class _Token:
    value: str
    refresh_at_s: float
    expires_at_s: float


class TokenSource:
    """Tokens for one client, shared by every worker of a lane; thread-safe.

    After the credentials were refused, nothing is asked for `refusal_interval_s` seconds: the same words are raised.
    """

    def __init__(
        self, session: Session, credentials: Credentials, *, token_path: str = "/oauth2/v1/accesstoken",  # noqa: S107
        refusal_interval_s: float = 300.0, monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._credentials = credentials
        self._target = f"{token_path}?grant_type=client_credentials"
        self._refusal_interval_s = refusal_interval_s
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._refused: CredentialsRefused | None = None
        self._refused_until_s = -math.inf

    def fetch_token(self, deadline: Deadline) -> str:
        """Return a token that is good now, asking for one when the cached one has used up 80 % of its life.

        Raises CredentialsRefused with the platform's words, or Transient when the service does not answer.
        """
        token = self._token
        if token is not None and self._monotonic_s() < token.refresh_at_s:
            return token.value
        if not self._lock.acquire(timeout=deadline.wait_s()):
            raise Transient("the token is still being fetched by another worker", code="timeout")
        try:
            return self._refresh(deadline)
        finally:
            self._lock.release()

    def drop_token(self, value: str) -> None:
        """Forget the token `value` after a 401; a newer one, which another worker has fetched since, stays."""
        with self._lock:
            if self._token is not None and self._token.value == value:
                self._token = None

    def _refresh(self, deadline: Deadline) -> str:
        token, now_s = self._token, self._monotonic_s()
        if token is not None and now_s < token.refresh_at_s:
            return token.value
        if self._refused is not None and now_s < self._refused_until_s:
            raise CredentialsRefused(str(self._refused), code=self._refused.code)
        try:
            self._token = self._request(deadline)
        except CredentialsRefused as refusal:
            self._token, self._refused = None, refusal
            self._refused_until_s = self._monotonic_s() + self._refusal_interval_s
            raise
        except Transient as fault:
            if token is not None and now_s < token.expires_at_s:
                return token.value
            # Never UnknownOutcome: whatever became of the token, the request that needed it has not left.
            raise Transient(str(fault), code=fault.code, retry_after_s=fault.retry_after_s) from None
        self._refused = None
        return self._token.value

    def _request(self, deadline: Deadline) -> _Token:
        form = urlencode({"client_id": self._credentials.client_key(), "client_secret": self._credentials.secret()})
        asked_at_s = self._monotonic_s()
        reply = self._session.exchange(
            "POST", self._target, deadline=self._session.open_deadline(deadline.remaining_s()),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body=form.encode("ascii"), limit_bytes=256 * 1024,
        )
        answer = classify(reply)
        value = answer.body.content.get("access_token")
        if reply.status == 200 and isinstance(value, str) and _TOKEN.fullmatch(value):
            life_s = parse_life_s(answer.body.content.get("expires_in"))
            return _Token(value, asked_at_s + REFRESH_SHARE * life_s, asked_at_s + life_s)
        raise explain_refusal(answer)


def parse_life_s(value: Any) -> float:
    """Return `expires_in` as seconds: the platform sends a string; without a usable value DEFAULT_LIFE_S."""
    try:
        life_s = float(value)
    except (TypeError, ValueError, OverflowError):
        return DEFAULT_LIFE_S
    if not math.isfinite(life_s):
        return DEFAULT_LIFE_S
    return min(max(life_s, 0.0), MAX_LIFE_S)


def explain_refusal(answer: Answer) -> CredentialsRefused | Transient:
    """Return the error that an answer without a token stands for."""
    if answer.meaning is Meaning.NO_PRODUCT:
        return CredentialsRefused(no_product_text(answer), code="no-api-product")
    words = f"the token service answered: {answer.text}"
    if answer.status in (400, 401) or (answer.status < 500 and answer.body.family is Family.OUTCOME):
        return CredentialsRefused(f"{words}; check client_key, secret_key and url")
    if answer.status < 300:
        return Transient("the token service answered without a token", code="token-reply-not-understood")
    slow_s = SLOW_RETRY_S if 300 <= answer.status < 500 and answer.meaning is not Meaning.THROTTLED else None
    return Transient(words, code=f"token-http-{answer.status}", retry_after_s=answer.retry_after_s or slow_s)


def no_product_text(answer: Answer) -> str:
    """Return what to do about credentials of another environment or product."""
    return (
        f"the client_key is not enabled for this service: {answer.text}; "
        "check that url and client_key belong to the same environment"
    )
