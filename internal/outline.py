"""Where the header of a data set lies, and that it is harmless to parse: one flat, bounded walk over its elements.

Layer 1, over scan. It goes before a full parser: everything that a parser would enter is entered here without
recursion, so that depth, number of elements and bytes are known before it sees a byte. Large values of the outermost
level are left out; pixel data is never reached. Changes when a full parser enters something else.
Source: PS3.5 7.5 (nesting), 6.2.2 note 2 (UN of undefined length), A.4 (fragments).
"""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO, Final

from internal.errors import NotDicom
from internal.scan import DEFLATED, LONG_VRS, SHORT_VRS, inflate, is_big, is_implicit

MAX_DEPTH: Final = 32
MAX_ELEMENTS: Final = 200_000
MAX_HEADER_BYTES: Final = 32 * 1024 * 1024
BULK_BYTES: Final = 64 * 1024
_PIXEL_GROUP: Final = 0x7FE0
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_DELIMITERS: Final = frozenset({_ITEM, _ITEM_END, _SEQUENCE_END})
_OPAQUE: Final = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV"})
_MAY_HOLD_ITEMS: Final = frozenset({b"SQ", b"UN", b""})


@dataclass(frozen=True, slots=True)
class Outline:
    """The header without large values: `data` in the encoding said, `bulk` (tag, VR) what was left out of it."""

    data: bytes
    implicit: bool
    big: bool
    bulk: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class _Frame:
    """A sequence, or one item of it, that the walk is inside of; `end` None: until its delimiter."""

    end: int | None
    is_item: bool
    implicit: bool
    opaque: bool = False


class _Malformed(Exception):
    """What lies here is no element."""


def outline(file: BinaryIO, transfer_syntax_uid: str) -> Outline:
    """Return the header of the data set that begins at the file's position. Raises NotDicom, saying why not."""
    if transfer_syntax_uid in DEFLATED:
        packed = file.read(MAX_HEADER_BYTES)
        file = io.BytesIO(inflate(packed, whole=len(packed) < MAX_HEADER_BYTES)[0])
    start = file.tell()
    implicit = is_implicit(file.read(6), transfer_syntax_uid)
    big = is_big(transfer_syntax_uid)
    walk = _Outliner(file, start, implicit=implicit, big=big)
    end = walk.run()
    if end - start - walk.bulk_bytes > MAX_HEADER_BYTES:
        raise NotDicom("the header is longer than 32 MB")
    data = bytearray()
    position = start
    for cut_from, cut_to in [*walk.cuts, (end, end)]:
        file.seek(position)
        data += file.read(cut_from - position)
        position = cut_to
    return Outline(bytes(data), implicit, big, tuple(walk.bulk))


class _Outliner:
    """One walk; `cuts` are the large elements of the outermost level."""

    def __init__(self, file: BinaryIO, start: int, *, implicit: bool, big: bool) -> None:
        order = ">" if big else "<"
        self._file = file
        self._position = start
        self._size = file.seek(0, io.SEEK_END)
        self._implicit = implicit
        self._big = big
        self._tag = struct.Struct(order + "HH")
        self._short = struct.Struct(order + "H")
        self._long = struct.Struct(order + "I")
        self._first_item = self._tag.pack(0xFFFE, 0xE000)
        self._stack: list[_Frame] = []
        self._budget = MAX_ELEMENTS
        self.cuts: list[tuple[int, int]] = []
        self.bulk: list[tuple[int, str]] = []
        self.bulk_bytes = 0

    def run(self) -> int:
        """Return where the header ends."""
        outermost = self._position
        while True:
            self._leave_ended()
            if not self._stack and self._position >= self._size:
                return self._position
            begins = self._position
            if not self._stack:
                outermost = begins
            try:
                tag, vr, length = self._element()
                if not self._stack and (tag >> 16) >= _PIXEL_GROUP:
                    return begins
                self._enter(begins, tag, vr, length)
            except _Malformed:
                if not self._skip_container():
                    return outermost  # damaged from here on: what lies before it is still worth showing

    def _leave_ended(self) -> None:
        while self._stack and (end := self._stack[-1].end) is not None and self._position >= end:
            self._stack.pop()

    def _limit(self) -> int:
        for frame in reversed(self._stack):
            if frame.end is not None:
                return frame.end
        return self._size

    def _read(self, count: int) -> bytes:
        self._file.seek(self._position)
        data = self._file.read(count)
        if len(data) < count or self._position + count > self._limit():
            raise _Malformed
        self._position += count
        return data

    def _element(self) -> tuple[int, bytes, int]:
        self._budget -= 1
        if self._budget < 0:
            raise NotDicom("the header has more than 200,000 elements")
        group, number = self._tag.unpack(self._read(4))
        tag = (group << 16) | number
        implicit = self._stack[-1].implicit if self._stack else self._implicit
        if tag in _DELIMITERS or implicit or (self._stack and not self._stack[-1].is_item):
            return tag, b"", self._long.unpack(self._read(4))[0]
        head = self._read(4)
        if head[:2] in SHORT_VRS:
            return tag, head[:2], self._short.unpack(head[2:])[0]
        if head[:2] in LONG_VRS:
            return tag, head[:2], self._long.unpack(self._read(4))[0]
        return tag, b"", self._long.unpack(head)[0]  # no VR there: written implicitly

    def _enter(self, begins: int, tag: int, vr: bytes, length: int) -> None:
        """Go into what holds elements, past what does not."""
        top = self._stack[-1] if self._stack else None
        if top is not None and not top.is_item:
            self._enter_item(top, tag, length)
            return
        if tag == _ITEM_END and top is not None and top.end is None:
            self._stack.pop()
            return
        if tag in _DELIMITERS:
            raise _Malformed
        value = self._position
        if length == _UNDEFINED:
            implicit = vr == b"UN" or (top.implicit if top is not None else self._implicit)
            self._push(_Frame(None, False, implicit, opaque=vr in _OPAQUE))
            return
        if value + length > self._limit():
            raise _Malformed
        if vr in _MAY_HOLD_ITEMS and length >= 8 and (vr == b"SQ" or self._peek() == self._first_item):
            self._push(_Frame(value + length, False, implicit=vr != b"SQ"))
            return
        if top is None and length > BULK_BYTES:
            self.cuts.append((begins, value + length))
            self.bulk.append((tag, vr.decode("ascii")))
            self.bulk_bytes += value + length - begins
        self._position = value + length

    def _enter_item(self, sequence: _Frame, tag: int, length: int) -> None:
        if tag == _SEQUENCE_END and sequence.end is None:
            self._stack.pop()
        elif tag != _ITEM:
            raise _Malformed
        elif length == _UNDEFINED:
            self._push(_Frame(None, True, sequence.implicit))
        elif self._position + length > self._limit():
            raise _Malformed
        elif sequence.opaque:
            self._position += length
        else:
            self._push(_Frame(self._position + length, True, sequence.implicit))

    def _push(self, frame: _Frame) -> None:
        if len(self._stack) >= 2 * MAX_DEPTH:
            raise NotDicom("sequences are nested too deep")
        self._stack.append(frame)

    def _peek(self) -> bytes:
        self._file.seek(self._position)
        return self._file.read(4)

    def _skip_container(self) -> bool:
        """Go on behind the innermost container whose length is known, if there is one: it holds no elements."""
        while self._stack:
            end = self._stack.pop().end
            if end is not None:
                self._position = end
                return True
        return False
