"""What may come as a body: bounded in size, time, nesting and encoding, whoever sends it.

Wraps ASGI's receive; used by the doorkeeper. Changes when another kind of body has to be watched.
"""

from __future__ import annotations

import time

import anyio
from starlette.datastructures import Headers
from starlette.types import Message, Receive

from interface.http.limits import Limits
from interface.http.problems import Problem


def content_length(headers: Headers) -> int:
    """Return the announced length in bytes, 0 for none. Raises Problem for one that is no number."""
    text = headers.get("content-length", "0")
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise Problem("bad-request")
    return int(text)


class BodyGuard:
    """The limits of one request's body. Raises Problem at once for what the headers already say."""

    def __init__(self, headers: Headers, max_bytes: int, limits: Limits) -> None:
        if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
            raise Problem("encoding")
        if content_length(headers) > max_bytes:
            raise Problem("too-large")
        self._max_bytes = max_bytes
        self._limits = limits
        self._depth = _JsonDepth(limits.json_depth) if "json" in headers.get("content-type", "").lower() else None

    def watch(self, receive: Receive) -> Receive:
        """Return a receive that raises Problem: 413, 408, or 400 for JSON nested too deeply."""
        limits = self._limits
        got_bytes = 0
        ended = False
        started_s = time.monotonic()

        async def watched() -> Message:
            nonlocal got_bytes, ended
            if ended:
                return await receive()
            with anyio.move_on_after(limits.chunk_wait_s) as waiting:
                message = await receive()
            if waiting.cancelled_caught:
                raise Problem("slow", headers={"Connection": "close"})
            body: bytes = message.get("body", b"")
            got_bytes += len(body)
            ended = message["type"] != "http.request" or not message.get("more_body", False)
            if got_bytes > self._max_bytes:
                raise Problem("too-large", headers={"Connection": "close"})
            if not ended and time.monotonic() - started_s > limits.body_s + got_bytes / limits.body_bytes_per_s:
                raise Problem("slow", headers={"Connection": "close"})
            if self._depth is not None:
                self._depth.feed(body)
            return message

        return watched


class _JsonDepth:
    """Counts open brackets outside of strings, as the bytes come: the parser never sees what is too deep."""

    def __init__(self, deepest: int) -> None:
        self._deepest = deepest
        self._depth = 0
        self._in_string = False
        self._escaped = False

    def feed(self, data: bytes) -> None:
        for byte in data:
            if self._in_string:
                if self._escaped:
                    self._escaped = False
                elif byte == 0x5C:
                    self._escaped = True
                elif byte == 0x22:
                    self._in_string = False
            elif byte == 0x22:
                self._in_string = True
            elif byte in b"[{":
                self._depth += 1
                if self._depth > self._deepest:
                    raise Problem("too-deep")
            elif byte in b"]}":
                self._depth -= 1
