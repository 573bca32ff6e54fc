"""Whether two data sets hold the same elements with the same values, however each of them is written.

Layer 1, over elements. The same image comes by two ways written in two: group lengths and Data Set Trailing Padding are
there or not, sequences have lengths or delimiters, values another padding, elements a VR or none. Nothing is decoded:
what would need that differs. Changes when DICOM lets the same content be written in another way.
Source: PS3.5 6.2 (padding of values), 7.1 (VR), 7.2 (group length), 7.5 (sequences); PS3.10 7.2 (trailing padding).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import BinaryIO, Final, NamedTuple

from internal.dictionary import vr_of
from internal.element_bytes import IMPLICIT_LITTLE, PIXEL_TAGS, Encoding, Source
from internal.elements import ITEM, ITEM_END, SEQUENCE_END, UNDEFINED, Walk, open_source
from internal.errors import NotDicom
from internal.scan import MAX_DEPTH

MAX_ELEMENTS: Final = 100_000
_TRAILING_PADDING: Final = 0xFFFCFFFC
_CHUNK_BYTES: Final = 1024 * 1024
_MAX_TEXT_BYTES: Final = 64 * 1024
_TEXT: Final = frozenset({
    "AE", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT",
})
#: Little endian and not compressed: values are the same bytes in all of them. Source: PS3.5 A.1, A.2, A.5.
_ALIKE: Final = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99"})


@dataclass(frozen=True, slots=True)
class Written:
    """A data set of `size_bytes` bytes from `offset` of `file` on, in its transfer syntax."""

    file: BinaryIO
    offset: int
    size_bytes: int
    transfer_syntax_uid: str


class _Event(NamedTuple):
    """One element with its value from `start` to `end`; a sequence is one without value, and its items follow.

    `told`: the VR stands there; otherwise it is the dictionary's.
    """

    tag: int
    vr: str = ""
    start: int = 0
    end: int = 0
    told: bool = False


class _Frame(NamedTuple):
    """A sequence, or an item of one, that the walk is inside of; it ends at `limit` unless a delimiter is to come."""

    is_item: bool
    delimited: bool
    limit: int
    encoding: Encoding


def same(one: Written, other: Written) -> bool:
    """Return whether both surely hold the same content; False too for what cannot be taken apart without doubt.

    At most 100,000 elements of each are looked at, and a megabyte of each is held at once (64 MB of a deflated one).
    Raises OSError of the files.
    """
    syntaxes = {one.transfer_syntax_uid, other.transfer_syntax_uid}
    if len(syntaxes) > 1 and not syntaxes <= _ALIKE:
        return False
    differs_at = _difference(one, other, enter_unknown=False)
    if differs_at is not None and "UN" in differs_at:
        differs_at = _difference(one, other, enter_unknown=True)
    return differs_at is None


def _difference(one: Written, other: Written, *, enter_unknown: bool) -> set[str] | None:
    """Return the VRs (at most two) of where the first difference is, None if there is none."""
    try:
        (left, left_encoding), (right, right_encoding) = (
            open_source(each.file, each.offset, each.size_bytes, each.transfer_syntax_uid) for each in (one, other))
        if max(left.behind_bytes, right.behind_bytes) > 1:  # PS3.5 A.5 allows one byte of padding
            return set()
        for a, b in zip_longest(_events(left, left_encoding, enter_unknown),
                                _events(right, right_encoding, enter_unknown)):
            if a is None or b is None or a.tag != b.tag or not (
                    _same_vr(a, b, big=left_encoding.big) and _same_value(a, left, b, right)):
                return {each.vr for each in (a, b) if each is not None}
    except NotDicom:
        return set()
    return None


def _same_vr(a: _Event, b: _Event, *, big: bool) -> bool:
    """Return whether equal bytes mean the same under both VRs. Big endian bytes lie as their VR says."""
    if a.vr == b.vr or not (a.told and b.told):
        return True
    return not big and ("UN" in (a.vr, b.vr) or {a.vr, b.vr} == {"OB", "OW"})


def _is_text(event: _Event) -> bool:
    return (vr_of(event.tag) if event.vr == "UN" else event.vr) in _TEXT


def _same_value(a: _Event, left: Source, b: _Event, right: Source) -> bool:
    length, other_length = a.end - a.start, b.end - b.start
    if length == other_length and all(
            left.read(a.start + at, min(a.start + at + _CHUNK_BYTES, a.end))
            == right.read(b.start + at, min(b.start + at + _CHUNK_BYTES, b.end))
            for at in range(0, length, _CHUNK_BYTES)):
        return True
    if max(length, other_length) > _MAX_TEXT_BYTES or not (_is_text(a) and _is_text(b)):
        return False
    return left.read(a.start, a.end).rstrip(b" \0") == right.read(b.start, b.end).rstrip(b" \0")


def _events(source: Source, encoding: Encoding, enter_unknown: bool) -> Iterator[_Event]:
    """Yield the content from beginning to end: each element, ITEM and ITEM_END around those of an item.

    A value of unknown VR and known length that begins like an item is a sequence if `enter_unknown`, else plain bytes.
    """
    walk, position = Walk(source, MAX_ELEMENTS), 0
    stack = [_Frame(True, False, source.size, encoding)]
    while position < source.size or len(stack) > 1:
        frame = stack[-1]
        if position >= frame.limit and not frame.delimited:
            yield from _left(stack.pop())
            continue
        tag, vr, length, value_at = walk.header(position, frame.encoding, item=not frame.is_item)
        position = end = frame.limit if length == UNDEFINED else value_at + length
        told = not frame.encoding.implicit
        if max(value_at, end) > frame.limit:
            raise NotDicom("something is longer than what it lies in")
        if frame.delimited and tag == (ITEM_END if frame.is_item else SEQUENCE_END):
            yield from _left(stack.pop())
        elif not frame.is_item and tag == ITEM:
            yield _Event(ITEM)
            position = _enter(stack, _Frame(True, length == UNDEFINED, end, frame.encoding), value_at)
        elif not frame.is_item or tag >> 16 == 0xFFFE:
            raise NotDicom("this stands where no such thing can")
        elif tag in PIXEL_TAGS and length == UNDEFINED:
            position = _end_of_fragments(walk, value_at, frame)
            yield _Event(tag, vr, value_at, position, told)
        elif _is_sequence(source, vr, length, value_at, enter_unknown):
            yield _Event(tag)
            inner = IMPLICIT_LITTLE if vr == "UN" else frame.encoding
            position = _enter(stack, _Frame(False, length == UNDEFINED, end, inner), value_at)
        elif tag & 0xFFFF and (len(stack) > 1 or tag != _TRAILING_PADDING):
            yield _Event(tag, vr, value_at, end, told)


def _left(frame: _Frame) -> Iterator[_Event]:
    if frame.is_item:
        yield _Event(ITEM_END)


def _enter(stack: list[_Frame], frame: _Frame, begins: int) -> int:
    if len(stack) > 2 * MAX_DEPTH:
        raise NotDicom("sequences are nested too deep")
    stack.append(frame)
    return begins


def _is_sequence(source: Source, vr: str, length: int, value_at: int, enter_unknown: bool) -> bool:
    if vr == "SQ" or length == UNDEFINED:
        return True
    return enter_unknown and vr == "UN" and length >= 8 and source.read(value_at, value_at + 4) == b"\xfe\xff\x00\xe0"


def _end_of_fragments(walk: Walk, position: int, frame: _Frame) -> int:
    while position <= frame.limit:
        tag, _, length, position = walk.header(position, frame.encoding, item=True)
        if tag == SEQUENCE_END:
            return position
        if tag != ITEM or length == UNDEFINED:
            break
        position += length
    raise NotDicom("compressed pixels hold something that is no fragment")
