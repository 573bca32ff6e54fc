"""An instance's file written in another transfer syntax without loss, proven by reading the result again.

Runs inside the limited child. Imports the modules of the codec below and dicomfile. Changes when a syntax can be
written in a new way. Source: PS3.5 8.2 and annex A.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO, Final

from internal import dicomfile
from internal.codec.description import Description
from internal.codec.elements import OFFSET_TABLES, PIXEL_DATA, Element, Span, Writer, chunks, integer
from internal.codec.frames import Frames, encode
from internal.codec.reading import Opened, opened, refuse_disputed_words
from internal.codec.syntaxes import WRITABLE, Coding, Syntax, syntax_of
from internal.errors import PixelsRefused

_PHOTOMETRIC: Final = 0x00280004
_PLANAR: Final = 0x00280006
#: What says how pixels are written, not what they are.
_OF_THE_CODING: Final = frozenset({PIXEL_DATA, _PHOTOMETRIC, _PLANAR}) | OFFSET_TABLES
_MAX_LENGTH: Final = 0xFFFFFFFE
_UNDEFINED: Final = 0xFFFFFFFF


def transcode(source: Path, target_uid: str, target: Path) -> dict[str, Any]:
    """Write `source` as `target` in the transfer syntax `target_uid`; durable on return, with canonical file meta.

    Every value and every pixel word is compared with the source by reading the result. UIDs stay: nothing is lost
    (PS3.4 B.4.1.3). Returns size_bytes, dataset_offset and sha256 of the whole file. Raises PixelsRefused, ``lossy``
    when the pixels of the source cannot be decoded to exactly one result; then `target` is not complete.
    """
    if target_uid not in WRITABLE:
        raise PixelsRefused("nothing is written in this transfer syntax", code="unsupported")
    syntax = syntax_of(target_uid)
    with opened(source) as original:
        with target.open("w+b") as file:
            offset = _write(original, syntax, file)
            file.flush()
            os.fsync(file.fileno())
        with opened(target) as result:
            if not same_content(original, result):
                raise PixelsRefused("the result is not the same image", code="not-exact")
    with target.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"size_bytes": file.tell(), "sha256": sha256, "dataset_offset": offset}


def _write(original: Opened, syntax: Syntax, file: BinaryIO) -> int:
    meta = original.meta
    head = dicomfile.canonical_meta(meta.sop_class_uid, meta.sop_uid, syntax.uid)
    file.write(head)
    writer = Writer(file, original.file, syntax)
    if syntax.big_endian != original.syntax.big_endian and original.has_pixels():
        refuse_disputed_words(integer(original.elements, 0x00280100) or 0)
    if _has_icon_in_fragments(original.elements):
        raise PixelsRefused("an icon inside the data set is compressed", code="unsupported")
    if not original.has_pixels() or not (original.syntax.encapsulated or syntax.encapsulated):
        if syntax.encapsulated:
            raise PixelsRefused("this object has no image", code="no-pixels")
        writer.elements(original.elements)
        return len(head)
    if not original.syntax.exact:
        raise PixelsRefused("the pixels were compressed with loss; they are sent only as they are", code="lossy")
    frames = original.frames()
    description = _target_description(frames, syntax)
    for element in original.elements:
        if element.tag == PIXEL_DATA:
            _write_pixels(writer, frames, description, syntax)
        elif element.tag == _PHOTOMETRIC:
            writer.elements([replace(element, value=_padded(description.photometric))])
        elif element.tag == _PLANAR and description.samples > 1:
            writer.elements([replace(element, value=struct.pack("<H", description.planar))])
        elif element.tag not in OFFSET_TABLES:
            writer.elements([element])
    return len(head)


def _has_icon_in_fragments(elements: Sequence[Element]) -> bool:
    return any(inner.fragments is not None or _has_icon_in_fragments([inner])
               for element in elements for item in element.items or () for inner in item)


def _padded(text: str) -> bytes:
    return text.encode("ascii") + b" " * (len(text) % 2)


def _target_description(frames: Frames, syntax: Syntax) -> Description:
    """Return how pixels will be described. Source: PS3.5 8.2.1-8.2.4 on Photometric Interpretation."""
    description = frames.description
    if frames.coding is Coding.NATIVE and description.subsampled:
        raise PixelsRefused("pixels with shared chroma have no lossless compressed form", code="unsupported")
    description = description.decoded() if frames.coding is not Coding.NATIVE else replace(description, planar=False)
    if syntax.coding is Coding.JPEG_2000 and description.photometric == "RGB":
        return replace(description, photometric="YBR_RCT")
    return replace(description, planar=syntax.coding is Coding.RLE and description.samples > 1)


def _write_pixels(writer: Writer, frames: Frames, description: Description, syntax: Syntax) -> None:
    if syntax.encapsulated:
        _write_fragments(writer, frames, description, syntax)
        return
    length = description.frame_bytes * description.frames
    if length > _MAX_LENGTH:
        raise PixelsRefused("uncompressed, the image is longer than a data set can hold", code="too-large")
    vr = b"OW" if description.bits_allocated > 8 or syntax.implicit else b"OB"
    writer.head(PIXEL_DATA, vr, length + length % 2)
    for number in range(description.frames):
        writer.words(frames.words(number), vr)
    writer.target.write(b"\x00" * (length % 2))


def _write_fragments(writer: Writer, frames: Frames, description: Description, syntax: Syntax) -> None:
    """Write one fragment per frame behind a Basic Offset Table, empty where offsets do not fit. Source: PS3.5 A.4."""
    file, count = writer.target, description.frames
    plain = replace(description, photometric="RGB") if description.photometric == "YBR_RCT" else description
    writer.head(PIXEL_DATA, b"OB", _UNDEFINED)
    writer.head(0xFFFEE000, b"", 4 * count)
    table = file.tell()
    file.write(bytes(4 * count))
    first, offsets = file.tell(), []
    for number in range(count):
        stream = encode(frames.words(number), syntax.coding, plain)
        stream += b"\x00" * (len(stream) % 2)
        offsets.append(file.tell() - first)
        writer.head(0xFFFEE000, b"", len(stream))
        file.write(stream)
    writer.head(0xFFFEE0DD, b"", 0)
    if offsets[-1] > _MAX_LENGTH:
        raise PixelsRefused("compressed, the image is longer than offsets can say", code="too-large")
    end = file.tell()
    file.seek(table)
    file.write(struct.pack(f"<{count}I", *offsets))
    file.seek(end)


def same_content(one: Opened, other: Opened) -> bool:
    """Are all values equal, whatever their encoding, and all pixel words after decoding?

    Group lengths, offset tables and padding are no content. Pixels that were compressed with loss are compared as they
    are. Raises PixelsRefused when pixels have to be decoded and cannot be.
    """
    if not _same_elements(_content(one.elements), one.file, _content(other.elements), other.file):
        return False
    if not one.has_pixels() or not other.has_pixels():
        return one.has_pixels() == other.has_pixels()
    if not (one.syntax.encapsulated or other.syntax.encapsulated):
        tags = _OF_THE_CODING - OFFSET_TABLES
        return _same_elements([e for e in one.elements if e.tag in tags], one.file,
                              [e for e in other.elements if e.tag in tags], other.file)
    a, b = one.frames(), other.frames()
    if replace(_plain(a), frames=1, planar=False) != replace(_plain(b), frames=1, planar=False) or \
            a.description.frames != b.description.frames:
        return False
    if not (one.syntax.exact and other.syntax.exact):
        return one.syntax.uid == other.syntax.uid and all(
            a.raw(number) == b.raw(number) for number in range(a.description.frames))
    return all(a.words(number) == b.words(number) for number in range(a.description.frames))


def _plain(frames: Frames) -> Description:
    return frames.description.decoded() if frames.coding is not Coding.NATIVE else frames.description


def _content(elements: Sequence[Element]) -> list[Element]:
    return [element for element in elements if element.tag not in _OF_THE_CODING]


def _same_elements(one: Sequence[Element], file: BinaryIO, other: Sequence[Element], other_file: BinaryIO) -> bool:
    left = (element for element in one if element.tag & 0xFFFF)
    right = (element for element in other if element.tag & 0xFFFF)
    return all(a is not None and b is not None and _same(a, file, b, other_file) for a, b in zip_longest(left, right))


def _same(a: Element, file: BinaryIO, b: Element, other_file: BinaryIO) -> bool:
    if a.tag != b.tag or (a.items is None) != (b.items is None):
        return False
    if a.items is not None and b.items is not None:
        return len(a.items) == len(b.items) and all(
            _same_elements(x, file, y, other_file) for x, y in zip(a.items, b.items, strict=True))
    length, other_length = _length(a.value), _length(b.value)
    shorter = min(length, other_length)
    if abs(length - other_length) > 1 or (length != other_length and shorter % 2 == 0):
        return False
    return _digest(a.value, file, shorter) == _digest(b.value, other_file, shorter)


def _length(value: bytes | Span) -> int:
    return value.length if isinstance(value, Span) else len(value)


def _digest(value: bytes | Span, file: BinaryIO, length: int) -> bytes:
    """Return the digest of the first `length` bytes: behind an odd value stands one byte that makes it even."""
    if isinstance(value, bytes):
        return hashlib.sha256(value[:length]).digest()
    digest = hashlib.sha256()
    for piece in chunks(file, value):
        digest.update(piece[:length])
        length -= len(piece[:length])
    return digest.digest()
