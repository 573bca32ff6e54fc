"""The head of a DICOM file: who it says it is, read in bounds and without touching pixel data.

Used by the DICOM store. Imports the standard library. Changes when more of the head is needed.
Source: PS3.10 section 7.1 (file meta), PS3.5 section 7 (data element encoding).
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from dataclasses import dataclass

WINDOW_BYTES = 64 * 1024
ELEMENT_LIMIT = 20_000
DEPTH_LIMIT = 16
META_LIMIT_BYTES = 1024 * 1024
INFLATED_LIMIT_BYTES = 4 * 1024 * 1024

IMPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED = "1.2.840.10008.1.2", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.1.99"
_LONG_VRS = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_VR = re.compile(rb"[A-Z][A-Z]\Z")
_UID = re.compile(r"[0-9]+(\.[0-9]+)*\Z", re.ASCII)
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES = 0x00080016, 0x00080018, 0x0020000D, 0x0020000E
_WANTED = frozenset({_SOP_CLASS, _SOP_INSTANCE, _STUDY, _SERIES})


class NotDicom(Exception):
    """These bytes are not a DICOM file with the UIDs it needs; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Part10Head:
    """The UIDs of one instance; the data set begins `dataset_offset` bytes into the file."""

    study_uid: str
    series_uid: str
    sop_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    dataset_offset: int


class _Source:
    """Random reads from an open file, or from bytes already inflated."""

    def __init__(self, descriptor: int, window: bytes, size: int) -> None:
        self._descriptor = descriptor
        self._window = window
        self._from = 0
        self.size = size

    def read(self, at: int, length: int) -> bytes:
        if at + length > self.size or length > META_LIMIT_BYTES:
            raise NotDicom("the file ends inside an element")
        if not self._from <= at <= at + length <= self._from + len(self._window):
            self._window = _read_at(self._descriptor, max(WINDOW_BYTES, length), at)
            self._from = at
        found = self._window[at - self._from:at - self._from + length]
        if len(found) < length:
            raise NotDicom("the file ends inside an element")
        return found


def _read_at(descriptor: int, length: int, at: int) -> bytes:
    os.lseek(descriptor, at, os.SEEK_SET)
    return os.read(descriptor, length)


class _Walker:
    """Walks data elements in one encoding; every element costs one from a shared allowance."""

    def __init__(self, source: _Source, *, explicit: bool, big: bool) -> None:
        self._source = source
        self._explicit = explicit
        order = ">" if big else "<"
        self._tag, self._short, self._long = (struct.Struct(order + code) for code in ("HH", "H", "I"))
        self._left = ELEMENT_LIMIT

    def element(self, at: int) -> tuple[int, int, int]:
        """(tag, value offset, value length) of the element at `at`."""
        self._left -= 1
        if self._left < 0:
            raise NotDicom(f"more than {ELEMENT_LIMIT} elements before the UIDs")
        head = self._source.read(at, 8)
        group, number = self._tag.unpack_from(head)
        tag = group << 16 | number
        if not self._explicit or group == 0xFFFE:
            return tag, at + 8, self._long.unpack_from(head, 4)[0]
        vr = head[4:6]
        if not _VR.match(vr):
            raise NotDicom("an element has no valid VR")
        if vr in _LONG_VRS:
            return tag, at + 12, self._long.unpack(self._source.read(at + 8, 4))[0]
        return tag, at + 8, self._short.unpack_from(head, 6)[0]

    def skip_sequence(self, at: int, depth: int) -> int:
        """Offset after a sequence of undefined length whose items begin at `at`."""
        if depth > DEPTH_LIMIT:
            raise NotDicom(f"sequences nested deeper than {DEPTH_LIMIT} levels")
        while True:
            tag, value, length = self.element(at)
            if tag == _SEQUENCE_END:
                return value
            if tag != _ITEM:
                raise NotDicom("a sequence holds something that is no item")
            at = value + length if length != _UNDEFINED else self._skip_item(value, depth)

    def _skip_item(self, at: int, depth: int) -> int:
        while True:
            tag, value, length = self.element(at)
            if tag == _ITEM_END:
                return value
            at = value + length if length != _UNDEFINED else self.skip_sequence(value, depth + 1)

    def text(self, at: int, length: int) -> str:
        return self._source.read(at, min(length, 256)).decode("ascii", "replace").rstrip("\0 ") if length else ""


def read_part10_head(descriptor: int, size: int, start_bytes: bytes = b"") -> Part10Head:
    """Read the head of the open file `descriptor` of `size` bytes, whose first bytes may be at hand already.

    Raises NotDicom for anything else than a complete head.
    """
    source = _Source(descriptor, start_bytes, size)
    if size < 144 or source.read(128, 4) != b"DICM":
        raise NotDicom("no DICM prefix: this is not a DICOM Part 10 file")
    meta, offset = _read_meta(source)
    syntax = meta.get(0x00020010, "")
    if not _UID.match(syntax):
        raise NotDicom("the file meta names no transfer syntax")
    start = offset
    if syntax == DEFLATED:
        inflated = _inflate(descriptor, offset)
        source, start = _Source(descriptor, inflated, len(inflated)), 0
    walker = _Walker(source, explicit=syntax != IMPLICIT_LITTLE, big=syntax == EXPLICIT_BIG)
    found = _find_uids(walker, start, source.size)
    if found[_SOP_INSTANCE] != meta.get(0x00020003):
        raise NotDicom("SOP Instance UID of file meta and data set differ")
    return Part10Head(found[_STUDY], found[_SERIES], found[_SOP_INSTANCE], found[_SOP_CLASS], syntax, offset)


def _read_meta(source: _Source) -> tuple[dict[int, str], int]:
    walker = _Walker(source, explicit=True, big=False)
    meta: dict[int, str] = {}
    at = 132
    while at + 8 <= source.size and source.read(at, 2) == b"\x02\x00":
        tag, value, length = walker.element(at)
        if length > META_LIMIT_BYTES:
            raise NotDicom("an element of the file meta is too long")
        if tag in (0x00020003, 0x00020010):
            meta[tag] = walker.text(value, length)
        at = value + length
    return meta, at


def _find_uids(walker: _Walker, at: int, size: int) -> dict[int, str]:
    found: dict[int, str] = {}
    while at < size and len(found) < len(_WANTED):
        tag, value, length = walker.element(at)
        if tag > _SERIES:
            break
        if tag in _WANTED:
            found[tag] = walker.text(value, length)
        at = value + length if length != _UNDEFINED else walker.skip_sequence(value, 0)
    for tag in sorted(_WANTED):
        if not _UID.match(found.get(tag, "")) or len(found[tag]) > 64:
            raise NotDicom(f"({tag >> 16:04x},{tag & 0xFFFF:04x}) is missing or not a UID")
    return found


def _inflate(descriptor: int, offset: int) -> bytes:
    """The first bytes of a deflated data set, enough for its head. Source: PS3.5 section A.5."""
    packed = _read_at(descriptor, INFLATED_LIMIT_BYTES // 4, offset)
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, INFLATED_LIMIT_BYTES)
    except zlib.error as error:
        raise NotDicom("the deflated data set is damaged") from error
