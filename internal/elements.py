"""A data set as elements that can be looked at and exchanged, everything untouched staying the bytes that came.

Layer 1, imports errors, scan's limits and the dictionary. `read` walks a data set and keeps where each element lies;
`pieces` says what a changed data set consists of: new bytes, and spans of the original that are copied as they are.
Pixel data and other long values are never loaded. Changes when a data set has to be taken apart in another way.
Source: PS3.5 7 and annex A.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from internal.dictionary import vr_of
from internal.errors import NotDicom
from internal.scan import DEFLATED, LONG_VRS, MAX_DEPTH, MAX_ELEMENTS, SHORT_VRS, is_big, is_implicit

MAX_VALUE_BYTES: Final = 1024 * 1024
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
MAX_INFLATED_BYTES: Final = 64 * 1024 * 1024
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
_NESTING: Final = frozenset({"SQ", "UN"})
_NAMES: Final = {vr: vr.decode("ascii") for vr in SHORT_VRS | LONG_VRS}
_SHORT_NAMES: Final = {vr: vr.decode("ascii") for vr in SHORT_VRS}
_SHORT_HEADER: Final = {False: struct.Struct("<HH2sH"), True: struct.Struct(">HH2sH")}
_WINDOW_BYTES: Final = 64 * 1024
UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
_BLOCK_BYTES: Final = 65535

#: (start, end) in the original data set; bytes are new.
Piece = bytes | tuple[int, int]


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


class Element(NamedTuple):
    """One element. `value` None: as it came, at `value_at` to `value_end` of the original.

    `items`: the changed items of a sequence. `start` to `end` is the whole element as it came (-1: a new one).
    """

    tag: int
    vr: str
    encoding: Encoding
    start: int = -1
    value_at: int = -1
    value_end: int = -1
    end: int = -1
    undefined: bool = False
    value: bytes | None = None
    items: list[DataSet] | None = None

    @property
    def is_sequence(self) -> bool:
        """Return whether its value are items."""
        if self.items is None and self.vr not in _NESTING:
            return False
        if self.tag in PIXEL_TAGS:
            return False
        return self.vr == "SQ" or self.items is not None or self.undefined or vr_of(self.tag) == "SQ"


class DataSet:
    """Elements by tag in the order in which they stand; a nested one is an item of a sequence."""

    __slots__ = ("elements", "encoding", "source")

    def __init__(self, source: Source, encoding: Encoding, elements: dict[int, Element]) -> None:
        self.source = source
        self.encoding = encoding
        self.elements = elements

    def copy(self) -> DataSet:
        """Return a data set of its own with the same elements."""
        return DataSet(self.source, self.encoding, dict(self.elements))

    def raw(self, tag: int) -> bytes | None:
        """Return the bytes of a value, None if the element is missing, a sequence or longer than 1 MB."""
        element = self.elements.get(tag)
        if element is None or tag in PIXEL_TAGS or element.is_sequence:
            return None
        if element.value is not None:
            return element.value
        if element.value_end - element.value_at > MAX_VALUE_BYTES:
            return None
        return self.source.read(element.value_at, element.value_end)

    def length(self, tag: int) -> int:
        """Return how long a value is in bytes, 0 if the element is missing; a sequence counts as its bytes."""
        element = self.elements.get(tag)
        if element is None:
            return 0
        if element.items is not None:
            return len(element.items)
        return len(element.value) if element.value is not None else element.value_end - element.value_at

    def items(self, tag: int) -> list[DataSet]:
        """Return the items of a sequence as data sets of their own, [] if there is none. Raises NotDicom."""
        element = self.elements.get(tag)
        if element is None or not element.is_sequence:
            return []
        if element.items is None:
            return Walk(self.source).items(element)
        return [item.copy() for item in element.items]

    def put(self, tag: int, vr: str, value: bytes) -> None:
        """Set a value, already padded to an even length; the element keeps its place or gets the one of its tag."""
        self._place(Element(tag, vr, self.encoding, value=value))

    def put_items(self, tag: int, items: list[DataSet]) -> None:
        """Set the items of a sequence."""
        known = self.elements.get(tag)
        encoding = known.encoding if known is not None else self.encoding
        vr = known.vr if known is not None and known.vr == "UN" else "SQ"
        self._place(Element(tag, vr, encoding, items=items))

    def remove(self, tag: int) -> bool:
        """Take an element out; False if there was none."""
        return self.elements.pop(tag, None) is not None

    def new_item(self, within: int = 0) -> DataSet:
        """Return an empty item for a sequence `within` this data set."""
        known = self.elements.get(within)
        inner = IMPLICIT_LITTLE if known is not None and known.vr == "UN" else self.encoding
        return DataSet(self.source, inner, {})

    def _place(self, element: Element) -> None:
        if element.tag in self.elements or not self.elements or element.tag > next(reversed(self.elements)):
            self.elements[element.tag] = element
            return
        ordered: dict[int, Element] = {}
        for tag, one in self.elements.items():
            if tag > element.tag and element.tag not in ordered:
                ordered[element.tag] = element
            ordered[tag] = one
        self.elements = ordered


class Source:
    """The bytes of one data set: a buffer, or a window over a file that begins at `offset`."""

    def __init__(self, data: bytes, file: BinaryIO | None = None, offset: int = 0, size: int | None = None) -> None:
        self.window, self.base = data, 0
        self._file = file
        self._offset = offset
        self.size = len(data) if size is None else size

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


class Walk:
    """Reads elements one after the other, at most `budget` of them."""

    def __init__(self, source: Source, budget: int = MAX_ELEMENTS) -> None:
        self._source = source
        self._budget = budget

    def top(self, encoding: Encoding) -> DataSet:
        elements = self._elements(0, self._source.size, encoding, ends_with=None, depth=0)[0]
        return DataSet(self._source, encoding, elements)

    def items(self, element: Element, depth: int = 1) -> list[DataSet]:
        """Return the items of the sequence `element` as it came."""
        encoding = IMPLICIT_LITTLE if element.vr == "UN" else element.encoding
        found: list[DataSet] = []
        position = element.value_at
        while position < element.value_end:
            tag, _, length, position = self.header(position, encoding, item=True)
            if tag == SEQUENCE_END:
                break
            if tag != ITEM:
                raise NotDicom("a sequence holds something that is no item")
            end = element.value_end if length == UNDEFINED else position + length
            if end > element.value_end:
                raise NotDicom("an item is longer than its sequence")
            ends_with = ITEM_END if length == UNDEFINED else None
            elements, position = self._elements(position, end, encoding, ends_with=ends_with, depth=depth)
            found.append(DataSet(self._source, encoding, elements))
        return found

    def _elements(
        self, position: int, end: int, encoding: Encoding, *, ends_with: int | None, depth: int,
    ) -> tuple[dict[int, Element], int]:
        """Return the elements from `position` to `end` (or the delimiter) and where the next thing begins."""
        elements: dict[int, Element] = {}
        source, explicit = self._source, not encoding.implicit
        short, make = _SHORT_HEADER[encoding.big].unpack_from, tuple.__new__
        while position < end:
            start, vr = position, None
            at = position - source.base
            if explicit and 0 <= at <= len(source.window) - 8:  # most elements are short and at hand
                group, number, name, length = short(source.window, at)
                vr = _SHORT_NAMES.get(name)
                tag, value_at = group << 16 | number, position + 8
                self._budget -= vr is not None
            if vr is None or self._budget < 0:
                tag, vr, length, value_at = self.header(position, encoding)
            if tag == ends_with:
                return elements, value_at
            if tag >> 16 == 0xFFFE:
                raise NotDicom("a delimiter stands where an element should")
            if length == UNDEFINED:
                inner = IMPLICIT_LITTLE if vr == "UN" else encoding
                value_end, position = self._skip(value_at, inner, depth + 1, fragments=tag in PIXEL_TAGS)
            else:
                value_end = position = value_at + length
            if position > end:
                raise NotDicom("an element is longer than the data set")
            if tag in elements:
                raise NotDicom("an element stands twice")
            elements[tag] = make(Element, (  # several times as fast as Element(...)
                tag, vr, encoding, start, value_at, value_end, position, length == UNDEFINED, None, None))
        if ends_with is not None:
            raise NotDicom("an item does not end")
        return elements, position

    def header(self, position: int, encoding: Encoding, *, item: bool = False) -> tuple[int, str, int, int]:
        """Return tag, VR, length and where the value begins; raises NotDicom where the budget is spent."""
        self._budget -= 1
        if self._budget < 0:
            raise NotDicom("the data set has too many elements")
        source, order = self._source, encoding.order
        at = source.need(position, 8)
        group, number = struct.unpack_from(order + "HH", source.window, at)
        tag = group << 16 | number
        if not (encoding.implicit or item or group == 0xFFFE):
            vr = source.window[at + 4 : at + 6]
            if vr in SHORT_VRS:
                return tag, _NAMES[vr], struct.unpack_from(order + "H", source.window, at + 6)[0], position + 8
            if vr in LONG_VRS:
                at = source.need(position, 12)
                return tag, _NAMES[vr], struct.unpack_from(order + "I", source.window, at + 8)[0], position + 12
        length = struct.unpack_from(order + "I", source.window, at + 4)[0]
        return tag, vr_of(tag), length, position + 8

    def _skip(self, position: int, encoding: Encoding, depth: int, *, fragments: bool) -> tuple[int, int]:
        """Return where the items that begin here end, without and with their delimiter."""
        if depth > MAX_DEPTH:
            raise NotDicom("sequences are nested too deep")
        while True:
            start = position
            tag, _, length, position = self.header(position, encoding, item=True)
            if tag == SEQUENCE_END:
                return start, position
            if tag != ITEM or (fragments and length == UNDEFINED):
                raise NotDicom("a sequence holds something that is no item")
            if length == UNDEFINED:
                _, position = self._elements(position, self._source.size, encoding, ends_with=ITEM_END, depth=depth)
            else:
                position += length
            if position > self._source.size:
                raise NotDicom("an item is longer than the data set")


def read(file: BinaryIO, offset: int, size_bytes: int, transfer_syntax_uid: str) -> DataSet:
    """Walk the data set of `size_bytes` bytes that begins at `offset` of `file` and return its elements.

    Nothing longer than a window is read, a deflated data set is inflated up to 64 MB. Raises NotDicom (and OSError of
    the file) for anything that cannot be taken apart without doubt.
    """
    source, encoding = open_source(file, offset, size_bytes, transfer_syntax_uid)
    return Walk(source).top(encoding)


def open_source(file: BinaryIO, offset: int, size_bytes: int, transfer_syntax_uid: str) -> tuple[Source, Encoding]:
    """Return the bytes that `read` walks over and how its elements are written; raises NotDicom as it does."""
    if transfer_syntax_uid in DEFLATED:
        file.seek(offset)
        source = Source(_inflate(file.read(size_bytes)))
    else:
        source = Source(b"", file, offset, size_bytes)
    head = source.read(0, 6) if source.size >= 6 else b""
    return source, Encoding(is_implicit(head, transfer_syntax_uid), is_big(transfer_syntax_uid))


def read_header(file: BinaryIO, offset: int, size_bytes: int, transfer_syntax_uid: str) -> DataSet:
    """Return the same as `read`, with everything before the pixels held in memory: `file` may be closed afterwards.

    Of more than 4 MB only the first are held; the values behind them are left out. Raises NotDicom.
    """
    dataset = read(file, offset, size_bytes, transfer_syntax_uid)
    end = min((one.start for tag, one in dataset.elements.items() if tag in PIXEL_TAGS), default=dataset.source.size)
    dataset.source.keep(min(end, MAX_HEADER_BYTES))
    return DataSet(dataset.source, dataset.encoding, {
        tag: one for tag, one in dataset.elements.items() if tag in PIXEL_TAGS or one.end <= dataset.source.size})


def _inflate(data: bytes) -> bytes:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(data, MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise NotDicom("the deflated data set cannot be inflated") from error
    if not inflater.eof:
        raise NotDicom("the deflated data set is cut off or inflates to more than 64 MB")
    return inflated


# --- writing -------------------------------------------------------------------------------------------------------

def pieces(dataset: DataSet) -> list[Piece]:
    """Return what the data set consists of, in order; neighbouring spans and bytes are joined."""
    joined: list[Piece] = []
    start = end = -1  # of the run of untouched elements, which are by far the most
    for element in dataset.elements.values():
        if element.value is None and element.items is None:
            if element.start != end:
                _join(joined, (start, end))
                start = element.start
            end = element.end
            continue
        _join(joined, (start, end))
        start = end = -1
        for piece in element_pieces(element):
            _join(joined, piece)
    _join(joined, (start, end))
    return joined


def _join(joined: list[Piece], piece: Piece) -> None:
    if piece and piece != (-1, -1):
        last = joined[-1] if joined else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            joined[-1] = last + piece
        elif isinstance(piece, tuple) and isinstance(last, tuple) and last[1] == piece[0]:
            joined[-1] = (last[0], piece[1])
        else:
            joined.append(piece)


def _pieces(dataset: DataSet) -> Iterator[Piece]:
    for element in dataset.elements.values():
        yield from element_pieces(element)


def element_pieces(element: Element) -> Iterator[Piece]:
    """Return what one element consists of; a changed sequence is written with undefined lengths."""
    if element.value is None and element.items is None:
        yield element.start, element.end
    elif element.items is None:
        assert element.value is not None
        yield _head(element, len(element.value)) + element.value
    else:
        item = struct.Struct(element.encoding.order + "HHI")
        yield _head(element, UNDEFINED)
        for one in element.items:
            yield item.pack(0xFFFE, 0xE000, UNDEFINED)
            yield from _pieces(one)
            yield item.pack(0xFFFE, 0xE00D, 0)
        yield item.pack(0xFFFE, 0xE0DD, 0)


def _head(element: Element, length: int) -> bytes:
    group, number, order = element.tag >> 16, element.tag & 0xFFFF, element.encoding.order
    vr = element.vr.encode("ascii")
    if element.encoding.implicit:
        return struct.pack(order + "HHI", group, number, length)
    if vr in SHORT_VRS:
        if length > 0xFFFF:
            raise NotDicom(f"a value of VR {element.vr} cannot be longer than 64 KB")
        return struct.pack(order + "HH2sH", group, number, vr, length)
    return struct.pack(order + "HH2sHI", group, number, vr, 0, length)


def deflated(data: bytes) -> bytes:
    """Return `data` as a deflate stream of stored blocks: the same bytes with any version of any library.

    Source: RFC 1951 3.2.4, PS3.5 A.5 (padded to an even length).
    """
    blocks: Sequence[bytes] = [data[at : at + _BLOCK_BYTES] for at in range(0, len(data), _BLOCK_BYTES)] or [b""]
    out = b"".join(
        struct.pack("<BHH", at == len(blocks) - 1, len(block), len(block) ^ 0xFFFF) + block
        for at, block in enumerate(blocks))
    return out + b"\0" * (len(out) % 2)
