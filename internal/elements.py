"""A data set as elements that can be looked at and exchanged, everything untouched staying the bytes that came.

Layer 1, imports element_bytes, scan and the dictionary. `read` walks a data set and keeps where each element lies;
`pieces` says what a changed data set consists of: new bytes, and spans of the original that are copied as they are.
Pixel data and other long values are never loaded. Changes when a data set has to be taken apart in another way.
Source: PS3.5 7 and annex A.
"""

from __future__ import annotations

import struct
from bisect import bisect
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final, NamedTuple

from internal.dictionary import vr_of
from internal.element_bytes import IMPLICIT_LITTLE, KINDS, PIXEL_TAGS, Encoding, Source, inflate
from internal.errors import NotDicom
from internal.scan import DEFLATED, LONG_VRS, MAX_DEPTH, MAX_ELEMENTS, SHORT_VRS, is_big, is_implicit

MAX_VALUE_BYTES: Final = 1024 * 1024
MAX_HEADER_BYTES: Final = 4 * 1024 * 1024
_NESTING: Final = frozenset({"SQ", "UN"})
_NAMES: Final = {vr: vr.decode("ascii") for vr in SHORT_VRS | LONG_VRS}
UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
_NOWHERE: Final = -2  #: where no element begins, not even a new one

#: (start, end) in the original data set; bytes are new.
Piece = bytes | tuple[int, int]


#: VR, start and end of a whole element as it came, whose value begins 8 bytes behind its start and is no sequence.
Place = tuple[str, int, int]


class Element(NamedTuple):
    """One element; it begins like a Place, with `start` and `end` -1 for a new one.

    `value` None: as it came, at `value_at` to `value_end` of the original. `items`: the changed items of a sequence.
    """

    vr: str
    start: int
    end: int
    tag: int
    encoding: Encoding
    value_at: int = -1
    value_end: int = -1
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
    """Elements by tag in the order in which they stand; a nested one is an item of a sequence.

    Of most elements only VR and place are held until one is asked for. `touched`: the tags put or removed since the
    data set was read; an element that is not among them is as it came.
    """

    __slots__ = ("_found", "encoding", "source", "touched")

    def __init__(self, source: Source, encoding: Encoding, found: Mapping[int, Element | Place]) -> None:
        self.source = source
        self.encoding = encoding
        self.touched: set[int] = set()
        self._found = dict(found)

    def copy(self) -> DataSet:
        """Return a data set of its own with the same elements."""
        made = DataSet(self.source, self.encoding, self._found)
        made.touched = set(self.touched)
        return made

    def __contains__(self, tag: int) -> bool:
        return tag in self._found

    @property
    def tags(self) -> list[int]:
        """Return the tags of all elements, in the order in which they stand."""
        return list(self._found)

    @property
    def elements(self) -> list[Element]:
        """Return all elements, in the order in which they stand."""
        return [self._made(tag, one) for tag, one in self._found.items()]

    def find(self, tag: int) -> Element | None:
        """Return an element, None if there is none."""
        found = self._found.get(tag)
        return None if found is None else self._made(tag, found)

    def _made(self, tag: int, found: Element | Place) -> Element:
        if isinstance(found, Element):
            return found
        vr, start, end = found
        return Element(vr, start, end, tag, self.encoding, start + 8, end)

    def raw(self, tag: int) -> bytes | None:
        """Return the bytes of a value, None if the element is missing, a sequence or longer than 1 MB."""
        found = self._found.get(tag)
        if found is None or tag in PIXEL_TAGS:
            return None
        if not isinstance(found, Element):
            start, end = found[1] + 8, found[2]
        elif found.is_sequence or found.value is not None:
            return found.value
        else:
            start, end = found.value_at, found.value_end
        return None if end - start > MAX_VALUE_BYTES else self.source.read(start, end)

    def length(self, tag: int) -> int:
        """Return how long a value is in bytes, 0 if the element is missing; a sequence counts as its bytes."""
        element = self.find(tag)
        if element is None:
            return 0
        if element.items is not None:
            return len(element.items)
        return len(element.value) if element.value is not None else element.value_end - element.value_at

    def items(self, tag: int) -> list[DataSet]:
        """Return the items of a sequence as data sets of their own, [] if there is none. Raises NotDicom."""
        element = self.find(tag)
        if element is None or not element.is_sequence:
            return []
        if element.items is None:
            return Walk(self.source).items(element)
        return [item.copy() for item in element.items]

    def put(self, tag: int, vr: str, value: bytes) -> None:
        """Set a value, already padded to an even length; the element keeps its place or gets the one of its tag."""
        self._place(Element(vr, -1, -1, tag, self.encoding, value=value))

    def put_items(self, tag: int, items: list[DataSet]) -> None:
        """Set the items of a sequence."""
        known = self.find(tag)
        encoding = known.encoding if known is not None else self.encoding
        vr = known.vr if known is not None and known.vr == "UN" else "SQ"
        self._place(Element(vr, -1, -1, tag, encoding, items=items))

    def put_back(self, element: Element) -> None:
        """Let an element that still has its place be as it came."""
        self._found[element.tag] = element
        self.touched.discard(element.tag)

    def within(self, end: int) -> DataSet:
        """Return a data set without the elements that reach beyond `end`, except pixels."""
        return DataSet(self.source, self.encoding, {
            tag: one for tag, one in self._found.items()
            if tag in PIXEL_TAGS or one[2] <= end})

    def remove(self, tag: int) -> bool:
        """Take an element out; False if there was none."""
        if self._found.pop(tag, None) is None:
            return False
        self.touched.add(tag)
        return True

    def new_item(self, within: int = 0) -> DataSet:
        """Return an empty item for a sequence `within` this data set."""
        known = self.find(within)
        inner = IMPLICIT_LITTLE if known is not None and known.vr == "UN" else self.encoding
        return DataSet(self.source, inner, {})

    def _place(self, element: Element) -> None:
        found, tag = self._found, element.tag
        self.touched.add(tag)
        if tag in found or not found or tag > next(reversed(found)):
            found[tag] = element
            return
        tags = list(found)
        at = bisect(tags, tag) if tags == sorted(tags) else next(at for at, one in enumerate(tags) if one > tag)
        behind = [(one, found.pop(one)) for one in tags[at:]]
        found[tag] = element
        found.update(behind)

    def pieces(self) -> list[Piece]:
        """Return what the data set consists of, in order; neighbouring spans and bytes are joined."""
        joined: list[Piece] = []
        start = end = 0  # of the run of untouched elements, which are by far the most
        for one in self._found.values():
            if one[1] == end:
                end = one[2]
                continue
            _join(joined, (start, end))
            start, end = one[1], one[2]
            if start < 0 and isinstance(one, Element):
                start = end = _NOWHERE
                for piece in element_pieces(one):
                    _join(joined, piece)
        _join(joined, (start, end))
        return joined


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
    ) -> tuple[dict[int, Element | Place], int]:
        """Return the elements from `position` to `end` (or the delimiter) and where the next thing begins."""
        found: dict[int, Element | Place] = {}
        while position < end:
            position = self._run(position, end, encoding, found)
            if position >= end:
                break
            element, position = self._element(position, encoding, ends_with, depth)
            if element is None:
                return found, position
            if element.tag in found:
                raise NotDicom("an element stands twice")
            found[element.tag] = element
        if position > end:
            raise NotDicom("an element is longer than the data set")
        if ends_with is not None:
            raise NotDicom("an item does not end")
        return found, position

    def _run(self, position: int, end: int, encoding: Encoding, found: dict[int, Element | Place]) -> int:
        """Take the elements from `position` on that are of known kinds and at hand; return where the next one begins.

        By far the most elements come this way, and all of the time goes here.
        """
        window, base = self._source.window, self._source.base
        unpack, known = KINDS[encoding].unpack, KINDS[encoding].known
        stop, count = min(end, base + len(window) - 7) if position >= base else position, len(found)
        while position < stop:
            key, length = unpack(window, position - base)
            kind = known.get(key)
            if kind is None or length == UNDEFINED:
                break
            tag, vr = kind
            if tag in found:
                raise NotDicom("an element stands twice")
            start, position = position, position + 8 + length
            found[tag] = vr, start, position
        self._budget -= len(found) - count
        if self._budget < 0:
            raise NotDicom("the data set has too many elements")
        return position

    def _element(
        self, start: int, encoding: Encoding, ends_with: int | None, depth: int,
    ) -> tuple[Element | None, int]:
        """Return the element that begins at `start`, of any kind, and where the next one does; None: the delimiter."""
        tag, vr, length, value_at = self.header(start, encoding)
        if value_at == start + 8 and length != UNDEFINED:
            at = start - self._source.base
            KINDS[encoding].learn(self._source.window[at : at + 8], tag, vr)
        if tag == ends_with:
            return None, value_at
        if tag >> 16 == 0xFFFE:
            raise NotDicom("a delimiter stands where an element should")
        value_end = position = value_at + length
        if length == UNDEFINED:
            inner = IMPLICIT_LITTLE if vr == "UN" else encoding
            value_end, position = self._skip(value_at, inner, depth + 1, fragments=tag in PIXEL_TAGS)
        return Element(vr, start, position, tag, encoding, value_at, value_end, length == UNDEFINED), position

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
        inflated, behind_bytes = inflate(file, size_bytes)
        source = Source(inflated)
        source.behind_bytes = behind_bytes
    else:
        source = Source(b"", file, offset, size_bytes)
    head = source.read(0, 6) if source.size >= 6 else b""
    return source, Encoding(is_implicit(head, transfer_syntax_uid), is_big(transfer_syntax_uid))


def read_header(file: BinaryIO, offset: int, size_bytes: int, transfer_syntax_uid: str) -> DataSet:
    """Return the same as `read`, with everything before the pixels held in memory: `file` may be closed afterwards.

    Of more than 4 MB only the first are held; the values behind them are left out. Raises NotDicom.
    """
    dataset = read(file, offset, size_bytes, transfer_syntax_uid)
    pixels = [one.start for tag in PIXEL_TAGS if (one := dataset.find(tag)) is not None]
    dataset.source.keep(min([*pixels, dataset.source.size, MAX_HEADER_BYTES]))
    return dataset.within(dataset.source.size)


# --- writing -------------------------------------------------------------------------------------------------------

def _join(joined: list[Piece], piece: Piece) -> None:
    if piece and (isinstance(piece, bytes) or piece[0] != piece[1]):
        last = joined[-1] if joined else None
        if isinstance(piece, bytes) and isinstance(last, bytes):
            joined[-1] = last + piece
        elif isinstance(piece, tuple) and isinstance(last, tuple) and last[1] == piece[0]:
            joined[-1] = (last[0], piece[1])
        else:
            joined.append(piece)


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
            for element_of_item in one.elements:
                yield from element_pieces(element_of_item)
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
