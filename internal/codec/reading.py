"""One DICOM file opened for its pixels: the data set as a tree and its frames.

Used by `transcoding` and `picture`. Imports dicomfile and the modules of the codec below. Changes when files can be
stored in another form.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from internal import dicomfile
from internal.codec.description import describe, pixel_element
from internal.codec.elements import FLOAT_PIXELS, Element, find, read_elements
from internal.codec.frames import Frames, locate
from internal.codec.syntaxes import Coding, Syntax, syntax_of
from internal.errors import NotDicom, PixelsRefused

MAX_INFLATED_BYTES: Final = 512 * 1024 * 1024
_MAX_RATIO: Final = 200
_ALWAYS_INFLATED_BYTES: Final = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Opened:
    """A data set as read: `file` holds the bytes that spans of `elements` point into."""

    file: BinaryIO
    meta: dicomfile.Meta
    syntax: Syntax
    elements: list[Element]

    def has_pixels(self) -> bool:
        """Is there Pixel Data at all?"""
        return pixel_element(self.elements) is not None

    def frames(self) -> Frames:
        """Return the frames; raises PixelsRefused, ``no-pixels`` for an object without an image."""
        pixels = pixel_element(self.elements)
        if pixels is None:
            if any(find(self.elements, tag) for tag in FLOAT_PIXELS):
                raise PixelsRefused("pixels that are floating point numbers are not drawn", code="unsupported")
            raise PixelsRefused("this object has no image", code="no-pixels")
        if self.syntax.coding is Coding.OPAQUE:
            raise PixelsRefused("pixels of this transfer syntax are not decoded", code="unsupported")
        description = describe(self.elements)
        if self.syntax.big_endian:
            refuse_disputed_words(description.bits_allocated)
        return locate(self.file, pixels, self.syntax.coding, description)


def refuse_disputed_words(bits_allocated: int) -> None:
    """Raise PixelsRefused for pixels of more than 16 bits in big endian: OW swaps words of 16, readers whole pixels."""
    if bits_allocated > 16:
        raise PixelsRefused("pixels this deep have no agreed big endian form", code="unsupported")


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open the Part 10 file at `path`; raises PixelsRefused when it is no such file or is damaged."""
    with path.open("rb") as file:
        try:
            meta = dicomfile.read_meta(file)
        except NotDicom:
            raise PixelsRefused("this is not a DICOM file", code="damaged") from None
        syntax = syntax_of(meta.transfer_syntax_uid)
        if syntax.deflated:
            plain = io.BytesIO(_inflated(file, meta.dataset_offset))
            yield Opened(plain, meta, syntax, read_elements(plain, 0, len(plain.getbuffer()), syntax))
        else:
            end = file.seek(0, io.SEEK_END)
            yield Opened(file, meta, syntax, read_elements(file, meta.dataset_offset, end, syntax))


def _inflated(file: BinaryIO, offset: int) -> bytes:
    """Return the data set, within MAX_INFLATED_BYTES and a ratio beyond which it is taken for a bomb."""
    size = file.seek(0, io.SEEK_END) - offset
    limit = min(MAX_INFLATED_BYTES, max(size * _MAX_RATIO, _ALWAYS_INFLATED_BYTES))
    file.seek(offset)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        plain = inflater.decompress(file.read(size), limit)
    except zlib.error:
        raise PixelsRefused("the deflated data set cannot be inflated", code="damaged") from None
    if not inflater.eof:
        raise PixelsRefused("the deflated data set is cut off or larger than is inflated",
                            code="too-large" if len(plain) >= limit else "damaged")
    return plain
