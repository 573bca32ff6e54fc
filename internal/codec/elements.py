"""A whole data set read into a tree and written in another encoding, every value kept; long values stay in the file.

Used by `transcoding` and `picture`, inside the limited child only. Every length is checked before it is used; depth,
number of elements and bytes held are bounded. Values are held little endian, whatever the file says.
Imports errors, scan's bounds and syntaxes. Changes when DICOM gets another encoding. Source: PS3.5 7 and annex A.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import BinaryIO, Final

import numpy
from pydicom import datadict

from internal.codec.syntaxes import Syntax
from internal.errors import PixelsRefused
from internal.scan import MAX_DEPTH

MAX_ELEMENTS: Final = 1_000_000
MAX_FRAGMENTS: Final = 1_000_000
MAX_HELD_BYTES: Final = 256 * 1024 * 1024
_HELD_VALUE_BYTES: Final = 256 * 1024
_CHUNK_BYTES: Final = 4 * 1024 * 1024
PIXEL_DATA: Final = 0x7FE00010
FLOAT_PIXELS: Final = frozenset({0x7FE00008, 0x7FE00009})
#: Extended Offset Table and its lengths: true of one encoding only.
OFFSET_TABLES: Final = frozenset({0x7FE00001, 0x7FE00002})

_LONG: Final = frozenset({b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_SHORT: Final = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
     b"ST", b"TM", b"UI", b"UL", b"US"}
)  # fmt: skip
_UNIT: Final = {
    b"US": 2, b"SS": 2, b"OW": 2, b"AT": 2, b"UL": 4, b"SL": 4, b"FL": 4, b"OF": 4, b"OL": 4,
    b"FD": 8, b"OD": 8, b"SV": 8, b"UV": 8, b"OV": 8,
}  # fmt: skip
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
#: VR of an implicit element that is US or SS as Pixel Representation says; never written.
_US_OR_SS: Final = b"??"


@dataclass(frozen=True, slots=True)
class Span:
    """A value left in the source file; `unit` > 1: its words of so many bytes are big endian there."""

    offset: int
    length: int
    unit: int = 1


@dataclass(slots=True)
class Element:
    """One element: `value` is little endian bytes, a Span, items of a sequence, or fragments (the first: offsets)."""

    tag: int
    vr: bytes
    value: bytes | Span
    items: list[list[Element]] | None = None
    fragments: list[Span] | None = None


def damaged(what: str) -> PixelsRefused:
    """Return the refusal of a data set or stream that is not what it says."""
    return PixelsRefused(f"the data set is damaged: {what}", code="damaged")


@lru_cache(maxsize=65536)
def _implicit_vr(tag: int) -> bytes:
    if tag & 0xFFFF == 0:
        return b"UL"
    if tag >> 16 & 1:
        return b"LO" if 0x10 <= tag & 0xFFFF <= 0xFF else b"UN"
    try:
        vr = datadict.dictionary_VR(tag)
    except KeyError:
        return b"UN"
    if len(vr) == 2:
        return bytes(vr, "ascii")
    return _US_OR_SS if vr == "US or SS" else b"OW"


@dataclass(slots=True)
class _Reader:
    """Reads elements one after another from `file`; `end` (bytes) is where the outermost data set ends."""

    file: BinaryIO
    implicit: bool
    big: bool
    end: int
    count: int = 0
    held: int = 0
    order: str = field(init=False)

    def __post_init__(self) -> None:
        self.order = ">" if self.big else "<"

    def take(self, position: int, length: int, end: int) -> bytes:
        if position + length > end:
            raise damaged("it ends inside an element")
        self.file.seek(position)
        data = self.file.read(length)
        if len(data) != length:
            raise damaged("it ends inside an element")
        return data

    def head(self, position: int, end: int, implicit: bool) -> tuple[int, bytes, int, int]:
        """Return (tag, VR, length, position of the value) of the element at `position`."""
        self.count += 1
        if self.count > MAX_ELEMENTS:
            raise PixelsRefused("the data set has more elements than are read", code="too-large")
        data = self.take(position, 8, end)
        group, number = struct.unpack_from(self.order + "HH", data)
        tag = group << 16 | number
        if group == 0xFFFE or implicit:
            (length,) = struct.unpack_from(self.order + "I", data, 4)
            return tag, b"" if group == 0xFFFE else _implicit_vr(tag), length, position + 8
        vr = data[4:6]
        if vr in _SHORT:
            (length,) = struct.unpack_from(self.order + "H", data, 6)
            return tag, vr, length, position + 8
        if vr not in _LONG:
            raise damaged("an element has no known VR")
        (length,) = struct.unpack(self.order + "I", self.take(position + 8, 4, end))
        return tag, vr, length, position + 12

    def data_set(self, position: int, end: int, implicit: bool, depth: int, *, item: bool) -> tuple[list[Element], int]:
        """Return the elements from `position` to `end`, or to the delimiter of an `item` of undefined length."""
        if depth > MAX_DEPTH:
            raise PixelsRefused("sequences are nested deeper than is read", code="too-large")
        elements: list[Element] = []
        while position < end:
            if depth == 0 and elements and self._only_zeros(position, end):
                return elements, end
            tag, vr, length, value = self.head(position, end, implicit)
            if tag == _ITEM_END and item:
                return elements, value
            if tag >> 16 == 0xFFFE:
                raise damaged("a delimiter stands where an element should")
            element, position = self.element(tag, vr, length, value, end, implicit, depth)
            elements.append(element)
        return elements, position

    def _only_zeros(self, position: int, end: int) -> bool:
        """Is this the padding that some devices append?"""
        if end - position > _HELD_VALUE_BYTES or self.take(position, min(4, end - position), end).strip(b"\x00"):
            return False
        return not self.take(position, end - position, end).strip(b"\x00")

    def element(
        self, tag: int, vr: bytes, length: int, value: int, end: int, implicit: bool, depth: int
    ) -> tuple[Element, int]:
        if length == _UNDEFINED and tag == PIXEL_DATA and vr != b"SQ":
            fragments, position = self.fragments(value, end)
            return Element(tag, b"OB", b"", fragments=fragments), position
        if vr == b"SQ" or length == _UNDEFINED or (vr == b"UN" and _implicit_vr(tag) == b"SQ"):
            # Source: PS3.5 6.2.2 note 3: UN is implicit little endian inside.
            inside_implicit = implicit or vr == b"UN"
            items, position = self.items(value, length, end, inside_implicit, depth + 1)
            return Element(tag, b"SQ", b"", items=items), position
        if value + length > end:
            raise damaged("a value is longer than what is left")
        unit = _UNIT.get(vr, 1) if self.big else 1
        if length % unit:
            raise damaged("a value is no whole number of words")
        if length > _HELD_VALUE_BYTES:
            return Element(tag, vr, Span(value, length, unit)), value + length
        self.held += length
        if self.held > MAX_HELD_BYTES:
            raise PixelsRefused("the header is longer than is read", code="too-large")
        return Element(tag, vr, _swapped(self.take(value, length, end), unit)), value + length

    def items(
        self, position: int, length: int, end: int, implicit: bool, depth: int
    ) -> tuple[list[list[Element]], int]:
        undefined = length == _UNDEFINED
        if not undefined:
            if position + length > end:
                raise damaged("a sequence is longer than what is left")
            end = position + length
        items: list[list[Element]] = []
        while undefined or position < end:
            tag, _, item_length, value = self.head(position, end, implicit)
            if tag == _SEQUENCE_END and undefined:
                return items, value
            if tag != _ITEM:
                raise damaged("a sequence holds something that is no item")
            if item_length == _UNDEFINED:
                elements, position = self.data_set(value, end, implicit, depth, item=True)
            else:
                if value + item_length > end:
                    raise damaged("an item is longer than its sequence")
                elements, position = self.data_set(value, value + item_length, implicit, depth, item=False)
            items.append(elements)
        return items, position

    def fragments(self, position: int, end: int) -> tuple[list[Span], int]:
        fragments: list[Span] = []
        while True:
            tag, length = struct.unpack("<II", self.take(position, 8, end))
            tag = (tag & 0xFFFF) << 16 | tag >> 16
            position += 8
            if tag == _SEQUENCE_END:
                return fragments, position
            if tag != _ITEM or length == _UNDEFINED or position + length > end or len(fragments) >= MAX_FRAGMENTS:
                raise damaged("the fragments of the pixels are cut off or garbage")
            fragments.append(Span(position, length))
            position += length


def read_elements(file: BinaryIO, offset: int, end: int, syntax: Syntax) -> list[Element]:
    """Return the data set in `file` from `offset` to `end` (bytes), in order of appearance.

    Raises PixelsRefused ``damaged`` or ``too-large``. Trailing NUL bytes, which some devices append, are left out.
    """
    reader = _Reader(file, syntax.implicit, syntax.big_endian, end)
    file.seek(offset)
    implicit = _really_implicit(file.read(6), syntax)
    elements, _ = reader.data_set(offset, end, implicit, 0, item=False)
    _resolve(elements, False)
    return elements


def _really_implicit(start: bytes, syntax: Syntax) -> bool:
    """Some devices send the other VR encoding than the one negotiated: the first element tells."""
    vr = start[4:6]
    if vr in _LONG or vr in _SHORT:
        return False
    return syntax.implicit or (bool(vr) and not vr.isalpha() and not syntax.big_endian)


def _resolve(elements: list[Element], signed: bool) -> None:
    """Give US-or-SS elements the VR that Pixel Representation of their data set, or one around it, says."""
    own = integer(elements, 0x00280103)
    signed = signed if own is None else own == 1
    for element in elements:
        if element.vr == _US_OR_SS:
            element.vr = b"SS" if signed else b"US"
        for item in element.items or ():
            _resolve(item, signed)


def find(elements: Sequence[Element], tag: int) -> Element | None:
    """Return the element `tag` of this level."""
    return next((element for element in elements if element.tag == tag), None)


def integer(elements: Sequence[Element], tag: int) -> int | None:
    """Return the first value of a US element; None if it is absent, empty or long."""
    element = find(elements, tag)
    if element is None or not isinstance(element.value, bytes) or len(element.value) < 2:
        return None
    return int.from_bytes(element.value[:2], "little")


def text(elements: Sequence[Element], tag: int) -> str:
    """Return the text of an element, '' if it has none."""
    element = find(elements, tag)
    if element is None or not isinstance(element.value, bytes):
        return ""
    return element.value.decode("ascii", "replace").strip(" \x00")


def _swapped(data: bytes, unit: int) -> bytes:
    if unit == 1 or not data:
        return data
    return bytes(numpy.frombuffer(data, dtype=f"u{unit}").byteswap().data)


def chunks(file: BinaryIO, span: Span) -> Iterator[bytes]:
    """Yield the value of `span`, little endian, in pieces of whole words."""
    position, left = span.offset, span.length
    while left:
        file.seek(position)
        data = file.read(min(left, _CHUNK_BYTES))
        if not data or len(data) % span.unit:
            raise damaged("the file became shorter while it was read")
        yield _swapped(data, span.unit)
        position += len(data)
        left -= len(data)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes elements in the encoding of `syntax`; long values are copied from `source`.

    Sequences and items get undefined lengths, values an even length; group lengths are left out. Equal trees give
    equal bytes.
    """

    target: BinaryIO
    source: BinaryIO
    syntax: Syntax

    def elements(self, elements: Sequence[Element]) -> None:
        """Write `elements`; pixels in fragments are not written here."""
        for element in elements:
            if element.tag & 0xFFFF == 0:
                continue
            if element.items is not None:
                self._sequence(element)
            else:
                self._value(element)

    def head(self, tag: int, vr: bytes, length: int) -> None:
        """Write tag, VR where the syntax has one, and length."""
        order = ">" if self.syntax.big_endian else "<"
        group, number = tag >> 16, tag & 0xFFFF
        if self.syntax.implicit or group == 0xFFFE:
            self.target.write(struct.pack(order + "HHI", group, number, length))
        elif vr in _SHORT:
            self.target.write(struct.pack(order + "HH2sH", group, number, vr, length))
        else:
            self.target.write(struct.pack(order + "HH2sHI", group, number, vr, 0, length))

    def words(self, words: bytes, vr: bytes) -> None:
        """Write part of a value, little endian words as `vr` has them."""
        self.target.write(_swapped(words, _UNIT.get(vr, 1) if self.syntax.big_endian else 1))

    def _sequence(self, element: Element) -> None:
        self.head(element.tag, b"SQ", _UNDEFINED)
        for item in element.items or ():
            self.head(_ITEM, b"", _UNDEFINED)
            self.elements(item)
            self.head(_ITEM_END, b"", 0)
        self.head(_SEQUENCE_END, b"", 0)

    def _value(self, element: Element) -> None:
        value, vr = element.value, element.vr
        length = value.length if isinstance(value, Span) else len(value)
        padding = length % 2
        if length + padding > 0xFFFE and vr in _SHORT and not self.syntax.implicit:
            vr = b"UN"  # Source: PS3.5 6.2.2, a value too long for its VR
        if self.syntax.big_endian and length % _UNIT.get(vr, 1):
            raise damaged("a value is no whole number of words")
        self.head(element.tag, vr, length + padding)
        pieces = chunks(self.source, value) if isinstance(value, Span) else iter((value,))
        for piece in pieces:
            self.words(piece, vr)
        if padding:
            self.target.write(b"\x00" if vr in _LONG or vr == b"UI" else b" ")
