"""How we say who we are to a web service: not at all, Basic, a bearer token, or OAuth2 client credentials.

Used by the destination "dicomweb". Imports outbound. Changes when another way of logging in is to be spoken.
Source: RFC 7617, RFC 6750, RFC 6749 4.4.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable
from typing import Protocol
from urllib.parse import quote, urlencode

from interface.outbound import Deadline, Session
from internal.errors import CredentialsRefused, Transient

_TOKEN = re.compile(r"[!-~]{1,8192}", re.ASCII)
_REFRESH_SHARE = 0.8
_DEFAULT_LIFE_S, _MAX_LIFE_S = 300.0, 86_400.0


class Login(Protocol):
    """Gives the Authorization header of each request."""

    def headers(self, deadline: Deadline) -> dict[str, str]:
        """Return the headers that say who we are; raises CredentialsRefused, Transient."""

    def forget(self) -> bool:
        """Drop what was cached after a 401; return whether another try makes sense."""


class Fixed:
    """The same header each time; `value` reveals it only when a request leaves."""

    def __init__(self, value: Callable[[], str] | None = None) -> None:
        self._value = value

    def headers(self, deadline: Deadline) -> dict[str, str]:
        """Return the header, none for an anonymous login."""
        return {} if self._value is None else {"Authorization": self._value()}

    def forget(self) -> bool:
        """Nothing is cached."""
        return False


def basic(user: str, password: Callable[[], str]) -> Fixed:
    """Return a login by user name and password."""
    return Fixed(lambda: f"Basic {base64.b64encode(f'{user}:{password()}'.encode()).decode()}")


def bearer(token: Callable[[], str]) -> Fixed:
    """Return a login by a token that does not change."""
    return Fixed(lambda: f"Bearer {token()}")


class ClientCredentials:
    """OAuth2 tokens of one client, cached until 80 % of their life is over; one request however many workers ask."""

    def __init__(self, session: Session, client_id: str, secret: Callable[[], str], scope: str = "") -> None:
        self._session = session
        self._client_id = client_id
        self._secret = secret
        self._scope = scope
        self._lock = threading.Lock()
        self._token = ""
        self._refresh_at_s = 0.0

    def headers(self, deadline: Deadline) -> dict[str, str]:
        """Return the header with a token that is good now; asks for one where there is none."""
        with self._lock:
            if not self._token or time.monotonic() >= self._refresh_at_s:
                self._token, life_s = self._request(deadline)
                self._refresh_at_s = time.monotonic() + _REFRESH_SHARE * life_s
            return {"Authorization": f"Bearer {self._token}"}

    def forget(self) -> bool:
        """Drop the token: the next request asks for another one."""
        with self._lock:
            self._token = ""
        return True

    def _request(self, deadline: Deadline) -> tuple[str, float]:
        form = {"grant_type": "client_credentials"} | ({"scope": self._scope} if self._scope else {})
        pair = f"{quote(self._client_id, safe='')}:{quote(self._secret(), safe='')}"
        reply = self._session.exchange(
            "POST", "", deadline=self._session.open_deadline(deadline.remaining_s()), body=urlencode(form).encode(),
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json",
                     "Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}, limit_bytes=256 * 1024)
        if reply.status in (400, 401, 403):
            words = f"the token service refuses our client id or secret (HTTP {reply.status})"
            raise CredentialsRefused(words, code="login-refused")
        try:
            document = json.loads(reply.body) if reply.status == 200 else {}
            token, life = document["access_token"], float(document.get("expires_in", _DEFAULT_LIFE_S))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            token, life = "", 0.0
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise Transient(f"the token service gives no token (HTTP {reply.status})", code="token-http-"
                            f"{reply.status}", retry_after_s=reply.retry_after_s)
        return token, min(max(life, 1.0), _MAX_LIFE_S) if life == life else _DEFAULT_LIFE_S
