"""One frame decoded to words or encoded from them; and where each frame of a data set lies.

A decoded frame is little endian words of Bits Allocated, by pixel (Planar Configuration 0), as an uncompressed data
set would hold them. Imports description, elements, errors, rle and syntaxes. Changes when a codec is added.
Source: PS3.5 8.2 and annex A.4.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import imagecodecs
import numpy
from numpy.typing import NDArray

from internal.codec import rle
from internal.codec.description import Claim, Description, check_stream
from internal.codec.elements import Element, Span, chunks, damaged
from internal.codec.syntaxes import Coding
from internal.errors import PixelsRefused

_STARTS = (b"\xff\xd8\xff", b"\xff\x4f\xff\x51", b"\x00\x00\x00\x0cjP  ")


@dataclass(frozen=True, slots=True)
class Frames:
    """The frames of one Pixel Data element: `parts[n]` are the pieces of the file that make up compressed frame n."""

    file: BinaryIO
    description: Description
    coding: Coding
    pixels: Element
    parts: Sequence[Sequence[Span]] = ()

    def raw(self, number: int) -> bytes:
        """Return the bytes of frame `number` (from 0) as they are in the file; little endian if they are native."""
        if self.coding is not Coding.NATIVE:
            return b"".join(piece for span in self.parts[number] for piece in chunks(self.file, span))
        bits = self.description.frame_bits
        first, last = number * bits // 8, ((number + 1) * bits + 7) // 8
        value = self.pixels.value
        if isinstance(value, bytes):
            return value[first:last]
        span = Span(value.offset + first, last - first, value.unit)
        if span.unit > 1 and (first % span.unit or span.length % span.unit):
            raise PixelsRefused("big endian frames that share a word are not read", code="unsupported")
        return b"".join(chunks(self.file, span))

    def words(self, number: int) -> bytes:
        """Return frame `number` decoded; of native pixels, brought to by-pixel order."""
        data = self.raw(number)
        if self.coding is not Coding.NATIVE:
            return decode(data, self.coding, self.description)
        if not self.description.planar or self.description.samples == 1:
            return data
        size = self.description.bits_allocated // 8
        planes = numpy.frombuffer(data, f"u{size}").reshape(self.description.samples, -1)
        return bytes(numpy.ascontiguousarray(planes.T).data)


def locate(file: BinaryIO, pixels: Element, coding: Coding, description: Description) -> Frames:
    """Return the frames of `pixels`; raises PixelsRefused when there are fewer than Number of Frames says."""
    if pixels.fragments is None:
        if coding is not Coding.NATIVE:
            raise damaged("compressed pixels do not lie in fragments")
        value = pixels.value
        size = value.length if isinstance(value, Span) else len(value)
        if size * 8 < description.frame_bits * description.frames:
            raise damaged("there are fewer pixels than the header says")
        return Frames(file, description, coding, pixels)
    if coding is Coding.NATIVE:
        raise damaged("fragments in a data set that is not compressed")
    if not pixels.fragments:
        raise damaged("there are no pixels")
    parts = _frame_parts(file, pixels.fragments, description.frames)
    return Frames(file, description, coding, pixels, parts)


def _frame_parts(file: BinaryIO, fragments: Sequence[Span], frames: int) -> list[list[Span]]:
    """Group fragments by frame: one each, the Basic Offset Table, or where a stream begins. Source: PS3.5 A.4."""
    table, data = fragments[0], fragments[1:]
    if len(data) < frames:
        raise damaged("there are fewer compressed frames than the header says")
    if frames == 1:
        return [list(data)]
    if len(data) == frames:
        return [[span] for span in data]
    starts = _offset_table(file, table, data, frames) or [
        number for number, span in enumerate(data) if _start_of(file, span).startswith(_STARTS)
    ]
    if len(starts) != frames or starts[0] != 0:
        raise damaged("it cannot be told which fragments belong to which frame")
    return [list(data[low:high]) for low, high in zip(starts, [*starts[1:], len(data)], strict=True)]


def _offset_table(file: BinaryIO, table: Span, data: Sequence[Span], frames: int) -> list[int] | None:
    if table.length != 4 * frames:
        return None
    offsets = struct.unpack(f"<{frames}I", b"".join(chunks(file, table)))
    positions = {span.offset - 8 - (data[0].offset - 8): number for number, span in enumerate(data)}
    starts = [positions.get(offset, -1) for offset in offsets]
    return None if -1 in starts or starts != sorted(set(starts)) else starts


def _start_of(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.offset)
    return file.read(min(16, span.length))


def decode(data: bytes, coding: Coding, description: Description) -> bytes:
    """Return the frame in the compressed stream `data`; raises PixelsRefused (nothing else) and checks sizes first."""
    claim = check_stream(data, coding, description)
    if coding is Coding.RLE:
        size = description.bits_allocated // 8
        if not size:
            raise PixelsRefused("pixels of one bit have no RLE form", code="unsupported")
        return rle.decode(data, description.rows * description.columns, description.samples, size)
    if claim is None:
        raise PixelsRefused("pixels of this transfer syntax are not decoded", code="unsupported")
    array = _decoded(data, coding, description, claim)
    shape = (description.rows, description.columns) + ((description.samples,) if description.samples > 1 else ())
    if array.shape != shape:
        raise damaged("the decoded image does not have the size it claimed")
    return _as_words(array, description, claim)


def _decoded(data: bytes, coding: Coding, description: Description, claim: Claim) -> NDArray[Any]:
    try:
        if coding is Coding.JPEG_2000:
            return imagecodecs.jpeg2k_decode(data)
        if coding is Coding.HTJ2K:
            return imagecodecs.htj2k_decode(data)
        if coding is Coding.JPEG_LS:
            return imagecodecs.jpegls_decode(data)
        if coding in (Coding.JPEG_LOSSLESS, Coding.JPEG):
            return _decode_jpeg(data, description, claim)
    except MemoryError:
        raise PixelsRefused("decoding needs more memory than it is given", code="too-large") from None
    except (RuntimeError, ValueError, TypeError, OverflowError) as error:  # imagecodecs' own errors are RuntimeError
        raise PixelsRefused(f"the compressed image is damaged ({type(error).__name__})", code="damaged") from None
    raise PixelsRefused("pixels of this transfer syntax are not decoded", code="unsupported")


def _decode_jpeg(data: bytes, description: Description, claim: Claim) -> NDArray[Any]:
    if claim.process == 0xC3:
        return imagecodecs.ljpeg_decode(data)
    if description.samples == 3:
        # Components as they are: what they mean is said by Photometric Interpretation, not by a marker.
        return imagecodecs.jpeg8_decode(data, colorspace="YCBCR", outcolorspace="YCBCR")
    return imagecodecs.jpeg8_decode(data)


def _as_words(array: NDArray[Any], description: Description, claim: Claim) -> bytes:
    """Bring decoded samples to Bits Allocated: the sign is what Pixel Representation says, whatever the stream says."""
    bits = description.bits_allocated
    wide = array.astype(numpy.int64) if array.dtype.itemsize > 2 else array.astype(numpy.int32)
    if claim.precision < bits:
        wide &= (1 << claim.precision) - 1
        if description.signed:
            sign = 1 << (claim.precision - 1)
            wide = (wide ^ sign) - sign
    return bytes(wide.astype(f"<i{bits // 8}" if bits > 8 else "i1", casting="unsafe").data)


def encode(words: bytes, coding: Coding, description: Description) -> bytes:
    """Return frame `words` (as `decode` gives it) compressed without loss; raises PixelsRefused ``unsupported``."""
    if description.bits_allocated not in (8, 16) and not (coding is Coding.RLE and description.bits_allocated == 32):
        raise PixelsRefused("pixels this deep have no such compressed form", code="unsupported")
    if coding is Coding.RLE:
        return rle.encode(words, description.rows, description.columns, description.samples,
                          description.bits_allocated // 8)
    kind = f"<{'i' if description.signed else 'u'}{description.bits_allocated // 8}"
    shape = (description.rows, description.columns) + ((description.samples,) if description.samples > 1 else ())
    array = numpy.frombuffer(words, kind).reshape(shape)
    try:
        return bytes(_encoded(array, coding, description))
    except MemoryError:
        raise PixelsRefused("encoding needs more memory than it is given", code="too-large") from None
    except (RuntimeError, ValueError) as error:
        raise PixelsRefused(f"these pixels have no such compressed form ({type(error).__name__})",
                            code="unsupported") from None


def _encoded(array: NDArray[Any], coding: Coding, description: Description) -> bytes | bytearray:
    unsigned = array.view(f"u{array.dtype.itemsize}")
    if coding is Coding.JPEG_2000:
        return imagecodecs.jpeg2k_encode(
            array, level=0, codecformat="j2k", reversible=True, bitspersample=_precision(array, description),
            mct=description.photometric == "RGB",
        )
    if coding is Coding.JPEG_LS:
        return _without_spiff(bytes(imagecodecs.jpegls_encode(unsigned)))
    if coding is Coding.JPEG_LOSSLESS:
        space = "RGB" if description.samples == 3 else None  # no colour transformation
        return imagecodecs.jpeg8_encode(unsigned, lossless=True, predictor=1, colorspace=space, outcolorspace=space,
                                        bitspersample=description.bits_allocated)
    raise PixelsRefused("nothing is written in this transfer syntax", code="unsupported")


def _precision(array: NDArray[Any], description: Description) -> int:
    """Return Bits Stored where every word fits, else Bits Allocated: unused bits may hold something, e.g. overlays."""
    bits = description.bits_stored
    low, high = (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) if description.signed else (0, (1 << bits) - 1)
    return bits if low <= int(array.min()) and int(array.max()) <= high else description.bits_allocated


def _without_spiff(stream: bytes) -> bytes:
    """Leave out the SPIFF header, which is about files and which some readers of DICOM do not expect."""
    position = 2
    while stream[position : position + 2] == b"\xff\xe8":
        position += 2 + int(struct.unpack_from(">H", stream, position + 2)[0])
    return stream[:2] + stream[position:]
