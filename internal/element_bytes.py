"""The bytes that elements are taken from: a window over a file, and how the header of an element is told.

Layer 1, imports errors and scan. Changes when the bytes of a data set have to be held in another way.
Source: PS3.5 7.1, A.5, RFC 1951.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from internal.errors import NotDicom
from internal.scan import SHORT_VRS

MAX_INFLATED_BYTES: Final = 64 * 1024 * 1024
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_WINDOW_BYTES: Final = 64 * 1024
_BLOCK_BYTES: Final = 65535


@dataclass(frozen=True, slots=True)
class Encoding:
    """How elements are written: implicit or explicit VR, little or big endian."""

    implicit: bool
    big: bool

    @property
    def order(self) -> str:
        """Return the mark of struct."""
        return ">" if self.big else "<"


IMPLICIT_LITTLE: Final = Encoding(implicit=True, big=False)


class Kinds:
    """Element headers of 8 bytes as they were met: the bytes before the length -> tag and VR; no pixels, no sequence.

    So many of them are kept, and no more: what comes in may name any tag.
    """

    MOST = 4096

    def __init__(self, encoding: Encoding) -> None:
        self.unpack = struct.Struct(encoding.order + ("4sI" if encoding.implicit else "6sH")).unpack_from
        self.known: dict[bytes, tuple[int, str]] = {}
        self._implicit = encoding.implicit

    def learn(self, header: bytes, tag: int, vr: str) -> None:
        """Keep what a header of 8 bytes means, unless it is one that has to be looked at whenever it is met."""
        key = header[:4] if self._implicit else header[:6]
        plain = vr != "SQ" if self._implicit else key[4:] in SHORT_VRS
        if plain and tag not in PIXEL_TAGS and tag >> 16 != 0xFFFE and len(self.known) < self.MOST:
            self.known[key] = tag, vr


KINDS: Final = {encoding: Kinds(encoding) for encoding in (
    IMPLICIT_LITTLE, Encoding(implicit=False, big=False), Encoding(implicit=False, big=True),
    Encoding(implicit=True, big=True))}


class Source:
    """The bytes of one data set: a buffer, or a window over a file that begins at `offset`.

    `behind_bytes`: so many stood behind the end of a deflated one.
    """

    def __init__(self, data: bytes, file: BinaryIO | None = None, offset: int = 0, size: int | None = None) -> None:
        self.window, self.base = data, 0
        self._file = file
        self._offset = offset
        self.size = len(data) if size is None else size
        self.behind_bytes = 0

    def need(self, start: int, count: int) -> int:
        """Have `count` bytes from `start` in the window and return where they begin in it. Raises NotDicom."""
        at = start - self.base
        if at >= 0 and at + count <= len(self.window):
            return at
        if self._file is None or start + count > self.size:
            raise NotDicom("an element is longer than the data set")
        self._file.seek(self._offset + start)
        self.window = self._file.read(min(max(_WINDOW_BYTES, count), self.size - start))
        self.base = start
        if len(self.window) < count:
            raise NotDicom("an element is longer than the data set")
        return 0

    def keep(self, end: int) -> None:
        """Hold the bytes up to `end` and let go of the file."""
        self.window, self.base = self.read(0, end), 0
        self._file, self.size = None, end

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`. Raises NotDicom."""
        at = start - self.base
        if not 0 <= at <= len(self.window) - (end - start):
            at = self.need(start, end - start)
        return self.window[at : at + end - start]


def inflate(file: BinaryIO, size_bytes: int) -> tuple[bytes, int]:
    """Return what the deflate stream in the next `size_bytes` of `file` holds, and how many bytes stand behind its end.

    Read step by step. Raises NotDicom if it is cut off, damaged or holds more than 64 MB.
    """
    inflater, inflated, left = zlib.decompressobj(-zlib.MAX_WBITS), bytearray(), size_bytes
    try:
        while not inflater.eof and len(inflated) <= MAX_INFLATED_BYTES:
            data = inflater.unconsumed_tail
            if not data:
                data = file.read(min(_WINDOW_BYTES, left))
                left -= len(data)
            part = inflater.decompress(data, MAX_INFLATED_BYTES + 1 - len(inflated))
            if not (data or part):
                break
            inflated += part
    except zlib.error as error:
        raise NotDicom("the deflated data set cannot be inflated") from error
    if not inflater.eof or len(inflated) > MAX_INFLATED_BYTES:
        raise NotDicom("the deflated data set is cut off or inflates to more than 64 MB")
    return bytes(inflated), len(inflater.unused_data) + left


def deflated(data: bytes) -> bytes:
    """Return `data` as a deflate stream of stored blocks: the same bytes with any version of any library.

    Source: RFC 1951 3.2.4, PS3.5 A.5 (padded to an even length).
    """
    blocks: Sequence[bytes] = [data[at : at + _BLOCK_BYTES] for at in range(0, len(data), _BLOCK_BYTES)] or [b""]
    out = b"".join(
        struct.pack("<BHH", at == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for at, block in enumerate(blocks))
    return out + b"\0" * (len(out) % 2)
