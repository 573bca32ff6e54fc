"""multipart/related as a stream of parts, none of which is ever held in memory.

Used by the DICOM store. Imports `http11`. Changes when the accepted form of multipart changes.
Source: RFC 2046 section 5.1, PS3.18 section 8.6.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from sandbox.http11 import HttpRefused

PART_HEAD_LIMIT_BYTES = 8 * 1024
PART_LIMIT = 10_000
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{1,70}\Z", re.ASCII)


def parse_boundary(content_type: str) -> bytes:
    """The boundary parameter of a Content-Type; HttpRefused 400 without a legal one."""
    match = re.search(r';\s*boundary=("([^"]*)"|[^;\s]+)', content_type, re.IGNORECASE)
    boundary = (match[2] if match[2] is not None else match[1]) if match else ""
    if not _BOUNDARY.match(boundary):
        raise HttpRefused(400, "multipart/related without a legal boundary")
    return boundary.encode()


class MultipartReader:
    """Splits chunks of a body into parts; call `parts()` once and read each part before asking for the next."""

    def __init__(self, chunks: Iterator[memoryview], boundary: bytes) -> None:
        self._chunks = chunks
        self._mark = b"\r\n--" + boundary
        # The first delimiter may stand at the very start, without the line break that belongs to the others.
        self._held = bytearray(b"\r\n")
        self._in_part = False

    def _more(self) -> None:
        for chunk in self._chunks:
            self._held += chunk
            return
        raise HttpRefused(400, "multipart body ends without its closing boundary")

    def _until_mark(self) -> Iterator[bytes]:
        while True:
            at = self._held.find(self._mark)
            if at >= 0:
                piece = bytes(self._held[:at])
                del self._held[:at + len(self._mark)]
                self._in_part = False
                if piece:
                    yield piece
                return
            safe = len(self._held) - len(self._mark) + 1
            if safe > 0:
                piece = bytes(self._held[:safe])
                del self._held[:safe]
                yield piece
            self._more()

    def _need(self, length: int) -> None:
        while len(self._held) < length:
            self._more()

    def parts(self) -> Iterator[tuple[dict[str, str], Iterator[bytes]]]:
        """(lower-case headers, content in pieces) of each part, to the closing boundary."""
        dropped = 0
        for piece in self._until_mark():
            dropped += len(piece)
            if dropped > PART_HEAD_LIMIT_BYTES:
                raise HttpRefused(400, "no boundary at the start of the multipart body")
        for _ in range(PART_LIMIT):
            self._need(2)
            if self._held[:2] == b"--":
                return
            headers = self._headers()
            self._in_part = True
            yield headers, self._until_mark()
            if self._in_part:
                raise HttpRefused(400, "a part was left unread")
        raise HttpRefused(413, f"more than {PART_LIMIT} parts")

    def _headers(self) -> dict[str, str]:
        while (end := self._held.find(b"\r\n\r\n")) < 0:
            if len(self._held) > PART_HEAD_LIMIT_BYTES:
                raise HttpRefused(400, "headers of a part too long")
            self._more()
        lines = bytes(self._held[:end]).decode("latin-1").split("\r\n")
        del self._held[:end + 4]
        found = {}
        # The first line is the rest of the delimiter's own.
        for line in lines[1:]:
            name, _, value = line.partition(":")
            found[name.strip().lower()] = value.strip()
        return found
