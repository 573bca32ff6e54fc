"""HTTP/1.1 as bytes: request heads, bodies (Content-Length and chunked) and replies, all bounded.

Sits between the socket (`server.py`) and the application. Imports the standard library only. Changes when what
we accept as HTTP changes. Source: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

HEAD_LIMIT_BYTES = 64 * 1024
LINE_LIMIT_BYTES = 8 * 1024
HEADER_LIMIT = 100
BUFFER_BYTES = 256 * 1024

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}\Z")
_VERSION = re.compile(rb"HTTP/1\.[01]\Z")
_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,12}\Z")


class HttpRefused(Exception):
    """The request cannot be served; `status` and a one-line `text` go to the peer, the connection closes."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class PeerGone(Exception):
    """The peer closed or went silent before the request was complete; nobody is left to answer."""


@dataclass(slots=True)
class Head:
    """Request line and headers; header names are lower case, repeated ones joined by a comma."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    keep_alive: bool


@dataclass(slots=True)
class Reply:
    """An answer: `body` bytes, or the file at `path` streamed; `drip_bytes_per_s` slows the sending down."""

    status: int
    body: bytes = b""
    content_type: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    path: Path | None = None
    drip_bytes_per_s: float = 0.0


def build_json_reply(status: int, value: object, headers: dict[str, str] | None = None) -> Reply:
    """A reply with `value` as JSON, in the key order given."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    return Reply(status, body, "application/json", headers or {})


def build_head(reply: Reply, length: int, *, keep_alive: bool) -> bytes:
    """Status line and headers of a reply whose body has `length` bytes. Source: RFC 9112 section 4."""
    phrase = HTTPStatus(reply.status).phrase if reply.status in HTTPStatus._value2member_map_ else "Status"
    lines = [f"HTTP/1.1 {reply.status} {phrase}"]
    if reply.content_type:
        lines.append(f"content-type: {reply.content_type}")
    lines += [f"{name}: {value}" for name, value in reply.headers.items()]
    if reply.status >= 200 and reply.status != 204:
        lines.append(f"content-length: {length}")
    if not keep_alive:
        lines.append("connection: close")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def parse_head(data: bytes) -> Head:
    """Parse the bytes up to and without the empty line; raises HttpRefused (400, 414, 431, 505), nothing else."""
    lines = data.split(b"\r\n")
    if len(lines[0]) > LINE_LIMIT_BYTES:
        raise HttpRefused(414, "request line too long")
    words = lines[0].split(b" ")
    if len(words) != 3 or not _TOKEN.match(words[0]):
        raise HttpRefused(400, "request line is not method, target, version")
    if not _VERSION.match(words[2]):
        raise HttpRefused(505, "only HTTP/1.0 and HTTP/1.1 are spoken here")
    if len(lines) > HEADER_LIMIT + 1:
        raise HttpRefused(431, f"more than {HEADER_LIMIT} headers")
    headers = _parse_headers(lines[1:])
    path, query = _split_target(words[1])
    last = headers.get("connection", "").lower()
    keep_alive = "keep-alive" in last if words[2] == b"HTTP/1.0" else "close" not in last
    return Head(words[0].decode(), path, query, headers, keep_alive)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _TOKEN.match(name) or b"\0" in value or b"\n" in value or b"\r" in value:
            raise HttpRefused(400, "malformed header")
        key, text = name.decode().lower(), value.strip(b" \t").decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _split_target(target: bytes) -> tuple[str, str]:
    try:
        text = target.decode("utf-8")
        if text.startswith("/"):
            path, _, query = text.partition("?")
            return path, query
        parts = urlsplit(text)
    except ValueError as error:
        raise HttpRefused(400, "malformed target") from error
    return parts.path or "/", parts.query


def body_length(head: Head) -> int | None:
    """Declared body length in bytes, None for chunked; raises HttpRefused. Source: RFC 9112 section 6."""
    declared, coding = head.headers.get("content-length"), head.headers.get("transfer-encoding")
    if coding is not None:
        if declared is not None:
            raise HttpRefused(400, "both Content-Length and Transfer-Encoding")
        if coding.strip().lower() != "chunked":
            raise HttpRefused(501, "only the chunked transfer coding is understood")
        return None
    if declared is None:
        return 0
    values = {value.strip() for value in declared.split(",")}
    if len(values) != 1 or not _LENGTH.match(next(iter(values))):
        raise HttpRefused(400, "bad Content-Length")
    return int(values.pop())


class Wire:
    """Buffered reading from one connected socket; memory per connection is `BUFFER_BYTES`."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def _receive(self, at: int) -> int:
        try:
            return self._sock.recv_into(self._view[at:])
        except (OSError, TimeoutError) as error:
            raise PeerGone from error

    def read_until(self, mark: bytes, limit_bytes: int) -> bytes | None:
        """Bytes before `mark`, which is consumed; None at a clean end; HttpRefused 431 over the limit."""
        searched = self._start
        while True:
            at = self._buffer.find(mark, max(self._start, searched - len(mark)), self._end)
            if at >= 0:
                found = bytes(self._view[self._start:at])
                self._start = at + len(mark)
                if len(found) > limit_bytes:
                    raise HttpRefused(431, "head or chunk line too long")
                return found
            searched = self._end
            if self._end - self._start > limit_bytes:
                raise HttpRefused(431, "head or chunk line too long")
            if self._start:
                kept = self._end - self._start
                self._buffer[:kept] = self._buffer[self._start:self._end]
                self._start, self._end, searched = 0, kept, kept
            received = self._receive(self._end)
            if not received:
                if self._end == self._start:
                    return None
                raise PeerGone
            self._end += received

    def read_some(self, at_most: int) -> memoryview:
        """Between 1 and `at_most` bytes, valid until the next call on this object; PeerGone at the end."""
        if self._start == self._end:
            self._start, self._end = 0, self._receive(0)
            if not self._end:
                raise PeerGone
        size = min(at_most, self._end - self._start)
        self._start += size
        return self._view[self._start - size:self._start]


class Body:
    """The body of one request, read once; sends `100 Continue` before the first read when it was asked for."""

    def __init__(self, wire: Wire, length: int | None, sock: socket.socket, *, expects_continue: bool) -> None:
        self._wire = wire
        self._sock = sock
        self._left = length
        self._expects_continue = expects_continue and length != 0
        self._pieces: Iterator[memoryview] = self._read()
        self.finished = length == 0

    @property
    def unasked(self) -> bool:
        """True while the peer still waits for `100 Continue`, so that none of the body is on its way."""
        return self._expects_continue

    def chunks(self) -> Iterator[memoryview]:
        """The body piece by piece, each valid until the next; raises PeerGone when it is cut short.

        Every call continues the same reading, so that what a handler left can be drained.
        """
        return self._pieces

    def peek(self, limit_bytes: int) -> bytes:
        """The first `limit_bytes` of the body at most, which `chunks` then gives once more."""
        head = bytearray()
        for piece in self._pieces:
            head += piece
            if len(head) >= limit_bytes:
                break
        rest = self._pieces
        self._pieces = itertools.chain([memoryview(bytes(head))] if head else [], rest)
        return bytes(head[:limit_bytes])

    def _read(self) -> Iterator[memoryview]:
        if self._expects_continue:
            self._expects_continue = False
            try:
                self._sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            except OSError as error:
                raise PeerGone from error
        if self.finished:
            return
        yield from self._chunked() if self._left is None else self._counted(self._left)
        self.finished = True

    def _counted(self, length: int) -> Iterator[memoryview]:
        while length:
            piece = self._wire.read_some(length)
            length -= len(piece)
            self._left = length
            yield piece

    def _chunked(self) -> Iterator[memoryview]:
        while True:
            size = self._chunk_size()
            if not size:
                break
            while size:
                piece = self._wire.read_some(size)
                size -= len(piece)
                yield piece
            if self._line() != b"":
                raise HttpRefused(400, "chunk longer than its size")
        for _ in range(HEADER_LIMIT):
            if self._line() == b"":
                return
        raise HttpRefused(431, "too many trailers")

    def _chunk_size(self) -> int:
        size = self._line().partition(b";")[0].strip()
        if not _CHUNK_SIZE.match(size):
            raise HttpRefused(400, "bad chunk size")
        return int(size, 16)

    def _line(self) -> bytes:
        line = self._wire.read_until(b"\r\n", 1024)
        if line is None:
            raise PeerGone
        return line

    def read_all(self, limit_bytes: int) -> bytes:
        """The whole body; HttpRefused 413 when it is longer than `limit_bytes`."""
        if self._left is not None and self._left > limit_bytes:
            raise HttpRefused(413, f"body longer than {limit_bytes} bytes")
        whole = bytearray()
        for piece in self.chunks():
            whole += piece
            if len(whole) > limit_bytes:
                raise HttpRefused(413, f"body longer than {limit_bytes} bytes")
        return bytes(whole)


@dataclass(slots=True)
class Request:
    """One request as handlers see it; `path` is still percent-encoded, `peer` is the address it came from."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: Body
    peer: str

    def parameters(self) -> list[tuple[str, str]]:
        """Query parameters, decoded as forms are (so a bare `+` is a blank); HttpRefused 400 over 50 of them."""
        return parse_pairs(self.query)


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Decode `a=b&c=d`, blanks kept; HttpRefused 400 for more than 50 pairs."""
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=50)
    except ValueError as error:
        raise HttpRefused(400, "too many parameters") from error


def decode_segment(segment: str) -> str:
    """One path segment without its percent-encoding; never used as a file name."""
    return unquote(segment)
