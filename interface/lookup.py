"""Look-ups for rules: one question to a service of the hospital by HTTP, its answers used again for a while.

The key travels in the body, never in the URL. Called by the rule book on a worker's thread, with a limit of time.
Imports outbound and config. Changes when look-ups speak another protocol.
"""

from __future__ import annotations

import json
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from urllib.parse import urlsplit

from interface.outbound import Session, SessionOptions
from internal.config import Settings
from internal.config.lookups import LookupSettings
from internal.errors import Transient
from internal.rules import EditFailed, LookUp

MAX_CACHED = 10_000
MAX_ANSWER_BYTES = 64 * 1024
MAX_VALUE = 1024


class HttpLookups:
    """Every section [lookup:NAME]; safe for several threads."""

    def __init__(self, sections: Mapping[str, LookupSettings]) -> None:
        self._services = {name: _Service(name, section) for name, section in sections.items()}

    def find(self, source: LookUp, key: str) -> str | None:
        """Return what the service has under `key`, None if it has nothing.

        Raises Transient while it cannot answer, EditFailed if its answer is none.
        """
        service = self._services.get(source.name)
        if service is None:
            raise EditFailed(f"there is no section [lookup:{source.name}]")
        return service.find(key)


class _Service:
    """One service with its cache, which forgets the oldest answers first."""

    def __init__(self, name: str, settings: LookupSettings) -> None:
        parts = urlsplit(settings.url)
        self._name = name
        self._settings = settings
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._session = Session(f"{parts.scheme}://{parts.netloc}", SessionOptions(stall_timeout_s=settings.timeout))
        self._lock = threading.Lock()
        self._cached: OrderedDict[str, tuple[float, str | None]] = OrderedDict()

    def find(self, key: str) -> str | None:
        now_s = time.monotonic()
        with self._lock:
            known = self._cached.get(key)
        if known is not None and now_s - known[0] < self._settings.cache:
            return known[1]
        answer = self._ask(key)
        with self._lock:
            self._cached[key] = (now_s, answer)
            self._cached.move_to_end(key)
            while len(self._cached) > MAX_CACHED:
                self._cached.popitem(last=False)
        return answer

    def _ask(self, key: str) -> str | None:
        body = json.dumps({"key": key}).encode()
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token := self._settings.token.reveal():
            bearer = self._settings.header.lower() == "authorization"
            headers[self._settings.header] = f"Bearer {token}" if bearer else token
        try:
            reply = self._session.exchange(
                "POST", self._target, headers=headers, body=body, limit_bytes=MAX_ANSWER_BYTES,
                deadline=self._session.open_deadline(self._settings.timeout))
        except Transient as fault:
            raise self._later(f"cannot be reached ({fault.code})", f"lookup-{fault.code}") from None
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise self._later(f"answers HTTP {reply.status}", f"lookup-{reply.status}", reply.retry_after_s)
        return self._value(reply.body)

    def _later(self, text: str, code: str, retry_after_s: float | None = None) -> Transient:
        return Transient(f"look-up {self._name} {text}", code=code, retry_after_s=retry_after_s, blame_lane=False)

    def _value(self, body: bytes) -> str | None:
        try:
            value = json.loads(body)["value"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise EditFailed(f"look-up {self._name} answers something that is no {{\"value\": ...}}") from None
        if value is None or value == "":
            return None
        if not isinstance(value, str | int) or len(str(value)) > MAX_VALUE:
            raise EditFailed(f"look-up {self._name} answers a value that cannot be used")
        return str(value)


def http_lookups(settings: Settings) -> HttpLookups:
    """Return the look-ups of a configuration; connects to nothing."""
    return HttpLookups(settings.named.get("lookup", {}))
