"""Around every request: host, rate, headers of every answer, and the last net for what nobody caught.

Pure ASGI, outermost first: `Headers`, `Hosts`, `Rate`, `LastNet`. Changes when browsers get another protection.
Source: OWASP Secure Headers, Fetch Metadata; RFC 9110 15.5.20 (421).
"""

from __future__ import annotations

import ipaddress
import logging
import secrets
import socket
import time
from collections import OrderedDict
from collections.abc import Iterable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from interface.http.problems import Problem, answer

log = logging.getLogger("router.web")

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; manifest-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_ALWAYS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_MAX_ADDRESSES = 20_000
_BURST_S = 15


class Headers:
    """Adds the protective headers to every answer, and HSTS where TLS is our own."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _ALWAYS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store")
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", "max-age=31536000")
            await send(message)

        await self._app(scope, receive, sending)


def own_names(host_names: Iterable[str]) -> frozenset[str]:
    """Return the host names with a dot by which this router may be called."""
    name = socket.gethostname().lower()
    return frozenset(("localhost", name, f"{name}.local", *host_names))


def is_own_host(host: str, names: frozenset[str]) -> bool:
    """Return whether a Host header names this router: an IP address, a name without dot, or one of `names`.

    A page of another site can make a browser call us only under a name that is in public DNS, which has a dot.
    """
    if not host or len(host) > 260 or not host.isprintable() or any(letter in host for letter in " /\\@"):
        return False
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    name = name.lower().rstrip(".")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return bool(name) and ("." not in name or name in names)
    return True


class Hosts:
    """Refuses requests under a host name that is not ours (DNS rebinding, poisoned links)."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
            if len(given) != 1 or not is_own_host(given[0], self._names):
                await answer(Problem("wrong-host"))(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Rate:
    """Bounds the requests of one address: a bucket that holds 15 s' worth and refills steadily."""

    def __init__(self, app: ASGIApp, per_minute: int) -> None:
        self._app = app
        self._per_s = per_minute / 60
        self._burst = max(30.0, self._per_s * _BURST_S)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != "/health/live":
            wait_s = self._take(scope["client"][0] if scope.get("client") else "", time.monotonic())
            if wait_s > 0:
                refused = Problem("too-often", headers={"Retry-After": str(int(wait_s) + 1)})
                await answer(refused)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _take(self, address: str, now_s: float) -> float:
        """Take one request; return how long to wait where there is none left, in seconds."""
        left, then_s = self._buckets.pop(address, (self._burst, now_s))
        left = min(self._burst, left + (now_s - then_s) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._buckets[address] = (left - 1 if left >= 1 else left, now_s)
        while len(self._buckets) > _MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        return wait_s


class LastNet:
    """The top of every request: what nobody caught becomes a 500 with a number, and a line in the log with the same."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "lifespan"):
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if scope["type"] != "http":
                raise
            number = secrets.token_hex(4)
            log.exception("request failed: number %s, route %s", number, route_of(scope))
            if not started:
                await answer(Problem("internal", number))(scope, receive, send)


def route_of(scope: Scope) -> str:
    """Return the route's pattern, never the path itself, which may hold identifiers."""
    return f"{Request(scope).method} {getattr(scope.get('route'), 'path', '?')}"
