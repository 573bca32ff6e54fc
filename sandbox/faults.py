"""Faults on demand: which request goes wrong, and how.

Asked by the dispatcher before a request is handled. Imports `http11`. Changes when a kind of fault is added.
Source: fact sheet satusehat.md section 8, point 9. Faults live in memory and end with the process.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from sandbox.http11 import Reply

RULE_LIMIT = 1000
BODY_LIMIT = 1024 * 1024
DEFAULT_AFTER_BYTES = 1024
BODY_HEAD_BYTES = 64 * 1024

# What the platform itself was seen to send with these statuses (fact sheet sections 1 and 2.5).
PLATFORM_BODIES = {
    403: ("text/html", "<html><head><title>403 Forbidden</title></head><body><h1>403 Forbidden</h1></body></html>"),
    404: ("", ""),
    429: ("application/json", '{"fault":{"faultstring":"Rate limit quota violation","detail":'
                              '{"errorcode":"policies.ratelimit.QuotaViolation"}}}'),
    500: ("text/plain", "Internal Server Error"),
    502: ("text/plain", "Bad Gateway"),
    503: ("text/plain", "no healthy upstream"),
    504: ("text/plain", "Gateway Timeout"),
}


class FaultInvalid(ValueError):
    """A fault rule cannot be used; the text names the field."""


@dataclass(slots=True)
class Fault:
    """One rule: what it matches (`method`, `path`, `*_contains`), when it fires, what then happens.

    `body_contains` looks at the first BODY_HEAD_BYTES of the request's body only.

    `nth`, `count` and `probability` choose among matching requests (all of them when none is given).
    `matches` and `hits` count matching and spoilt requests.
    """

    method: str = ""
    path: str = ""
    query_contains: str = ""
    body_contains: str = ""
    nth: int | None = None
    count: int | None = None
    probability: float | None = None
    seed: int | None = None
    status: int | None = None
    headers: dict[str, str] | None = None
    body: Any = None
    delay_s: float = 0.0
    reset: bool = False
    after_bytes: int = DEFAULT_AFTER_BYTES
    store_then_reset: bool = False
    drip_bytes_per_s: float = 0.0
    matches: int = 0
    hits: int = 0
    chance: random.Random = field(default_factory=random.Random, repr=False)

    def concerns(self, method: str, path: str, query: str) -> bool:
        """True when the request is one this rule is about."""
        return (self.method in ("", method) and path.startswith(self.path)
                and (not self.query_contains or self.query_contains in query))

    def is_in(self, head: bytes) -> bool:
        """True when the beginning of the body holds what this rule looks for."""
        return self.body_contains.encode() in head

    def fires(self) -> bool:
        """Count one matching request; True when it is one to spoil."""
        self.matches += 1
        if self.nth is not None:
            return self.matches == self.nth
        if self.count is not None:
            return self.matches <= self.count
        return self.probability is None or self.chance.random() < self.probability

    def reply(self) -> Reply | None:
        """The answer to give instead of the platform's, or None to let the platform answer."""
        if self.status is None:
            return None
        content_type, text = PLATFORM_BODIES.get(self.status, ("", ""))
        if self.status == 401 and self.body is None:
            content_type, text = "application/json", json.dumps({"fault": {
                "faultstring": "Invalid access token", "detail": {"errorcode": "oauth.v2.InvalidAccessToken"}}})
        if isinstance(self.body, str):
            text = self.body
            content_type = content_type or "text/plain"
        elif self.body is not None:
            content_type, text = "application/json", json.dumps(self.body)
        headers = {name.lower(): value for name, value in (self.headers or {}).items()}
        return Reply(self.status, text.encode(), headers.pop("content-type", content_type), headers)

    def listing(self) -> dict[str, object]:
        """The rule as it was given, with its counters."""
        shown = {name: getattr(self, name) for name in FIELDS if getattr(self, name) != getattr(Fault, name, None)}
        return {**{name: value for name, value in shown.items() if value not in (None, "", False, 0.0)},
                "matches": self.matches, "hits": self.hits}


FIELDS = ("method", "path", "query_contains", "body_contains", "nth", "count", "probability", "seed", "status",
          "headers", "body", "delay_s", "reset", "after_bytes", "store_then_reset", "drip_bytes_per_s")
_NUMBERS: dict[str, tuple[type | tuple[type, ...], float, float]] = {
    "nth": (int, 1, 10**9), "count": (int, 1, 10**9), "probability": ((int, float), 0, 1), "seed": (int, 0, 2**63),
    "status": (int, 200, 599), "delay_s": ((int, float), 0, 3600), "after_bytes": (int, 0, 2**40),
    "drip_bytes_per_s": ((int, float), 1, 10**9)}


def parse_fault(given: object) -> Fault:
    """One rule from untrusted JSON; raises FaultInvalid."""
    if not isinstance(given, dict):
        raise FaultInvalid("each fault must be an object")
    for name, value in given.items():
        _check_field(name, value)
    if len([name for name in ("nth", "count", "probability") if name in given]) > 1:
        raise FaultInvalid("only one of nth, count and probability may be given")
    fault = Fault(**given)
    fault.method = fault.method.upper()
    if fault.seed is not None:
        fault.chance = random.Random(fault.seed)
    if not (fault.status or fault.delay_s or fault.reset or fault.store_then_reset or fault.drip_bytes_per_s):
        raise FaultInvalid("a fault needs one of status, delay_s, reset, store_then_reset, drip_bytes_per_s")
    return fault


def _check_field(name: str, value: object) -> None:
    if name not in FIELDS:
        raise FaultInvalid(f"{name[:40]} is not one of {', '.join(FIELDS)}")
    if name in _NUMBERS:
        kind, low, high = _NUMBERS[name]
        if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:  # type: ignore[operator]
            raise FaultInvalid(f"{name} must be a number from {low} to {high}")
    elif name in ("reset", "store_then_reset"):
        if not isinstance(value, bool):
            raise FaultInvalid(f"{name} must be true or false")
    elif name == "headers":
        if not isinstance(value, dict) or not all(
                isinstance(text, str) and text.isprintable() for pair in value.items() for text in pair):
            raise FaultInvalid("headers must map names to printable texts")
    elif name == "body":
        if len(json.dumps(value)) > BODY_LIMIT:
            raise FaultInvalid(f"body must not be longer than {BODY_LIMIT} characters")
    elif not isinstance(value, str) or len(value) > 2000:
        raise FaultInvalid(f"{name} must be a text")


class FaultBook:
    """The rules in force, asked in the order in which they were given."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def add(self, given: object) -> None:
        """Append one rule or a list of rules; raises FaultInvalid and then adds none."""
        faults = [parse_fault(one) for one in (given if isinstance(given, list) else [given])]
        with self._lock:
            if len(self._faults) + len(faults) > RULE_LIMIT:
                raise FaultInvalid(f"more than {RULE_LIMIT} faults")
            self._faults += faults

    def match(self, method: str, path: str, query: str, read_head: Callable[[], bytes] = bytes) -> Fault | None:
        """The rule that spoils this request: the first that fires; every matching rule counts the request.

        `read_head` gives the first BODY_HEAD_BYTES of its body, and is asked only where a rule looks at it.
        """
        with self._lock:
            looks = any(fault.body_contains and fault.concerns(method, path, query) for fault in self._faults)
        head = read_head() if looks else b""
        with self._lock:
            firing = [fault for fault in self._faults
                      if fault.concerns(method, path, query) and fault.is_in(head) and fault.fires()]
            if firing:
                firing[0].hits += 1
                return firing[0]
        return None

    def listing(self) -> list[dict[str, object]]:
        """All rules with their counters."""
        with self._lock:
            return [fault.listing() for fault in self._faults]

    def clear(self) -> None:
        """Forget all rules."""
        with self._lock:
            self._faults.clear()
