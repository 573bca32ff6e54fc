"""Limits of a connection that the server itself does not have: how many, how long and how large a head; and the Date.

A mixin over uvicorn's protocol classes, so that slow or silent peers cost nothing but a bounded number of sockets.
Changes when uvicorn brings such limits. Source: facts, reliability.md 3.3 S37.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from email.utils import formatdate
from typing import Any

from interface.http.limits import Limits


def limited_protocol(max_connections: int, limits: Limits, proxies: frozenset[str] = frozenset()) -> type[Any]:
    """Return uvicorn's HTTP protocol with our limits; one address may hold half of all connections, a proxy all."""
    base: Any = _base()
    per_address: Counter[str] = Counter()

    class Limited(base):  # type: ignore[misc]  # one of uvicorn's two classes
        _head_timer: asyncio.TimerHandle | None = None
        _head_bytes = _ahead_bytes = 0
        _address = ""
        _counted = False

        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._address = self.client[0] if self.client else ""
            share = max_connections if self._address in proxies else max(2, max_connections // 2)
            if per_address.total() >= max_connections or per_address[self._address] >= share:
                transport.abort()
                return
            per_address[self._address] += 1
            self._counted = True
            self._await_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_known()
            if self._counted:
                _leave(per_address, self._address)
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            self.server_state.default_headers = [_date(), *self.config.encoded_headers]
            before = self.cycle
            if before is None or before.response_complete:
                self._ahead_bytes = 0
                self._head_bytes += len(data)
                self._await_head()
            elif not before.more_body:  # pipelined: the parser keeps all of it until its turn comes
                self._ahead_bytes += len(data)
            super().data_received(data)
            if self._ahead_bytes > limits.ahead_bytes:
                self.transport.abort()
            elif self.cycle is not before:
                self._head_bytes = 0
                self._head_known()
            elif self._head_bytes > limits.head_bytes and not self.transport.is_closing():
                self.transport.abort()

        def _await_head(self) -> None:
            if self._head_timer is None:
                self._head_timer = self.loop.call_later(limits.head_wait_s, self._too_slow)

        def _head_known(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.abort()

    return Limited


def _date() -> tuple[bytes, bytes]:
    """Return the Date of a response (RFC 9110 6.6.1): the server renews it by a timer, which would never rest."""
    return b"date", formatdate(time.time(), usegmt=True).encode()


def _leave(per_address: Counter[str], address: str) -> None:
    per_address[address] -= 1
    if not per_address[address]:
        del per_address[address]


def _base() -> type[asyncio.Protocol]:
    try:
        import httptools  # noqa: F401
    except ImportError:
        from uvicorn.protocols.http.h11_impl import H11Protocol

        return H11Protocol  # type: ignore[no-any-return]
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

    return HttpToolsProtocol  # type: ignore[no-any-return]
