"""What a data set says about its pixels, and what the codestream says of itself, compared before anything is decoded.

Imports elements and errors. Changes when pixels can be described in another way. Source: PS3.3 C.7.6.3, PS3.5 8.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from internal.codec.elements import Element, find, integer, text
from internal.codec.syntaxes import Coding
from internal.errors import PixelsRefused

MAX_FRAME_BYTES: Final = 512 * 1024 * 1024
MAX_FRAMES: Final = 1_000_000
_SEARCHED_BYTES: Final = 64 * 1024
_JPEG_FRAMES: Final = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC} | {0xF7}
_JPEG_ALONE: Final = frozenset({0x01, *range(0xD0, 0xD9)})


@dataclass(frozen=True, slots=True)
class Description:
    """The attributes that say how pixels are laid out; `frames` is at least 1."""

    rows: int
    columns: int
    samples: int
    bits_allocated: int
    bits_stored: int
    signed: bool
    photometric: str
    planar: bool
    frames: int

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame; frames of one-bit pixels follow each other without padding."""
        samples = 2 if self.subsampled else self.samples
        return self.rows * self.columns * samples * self.bits_allocated

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame, rounded up."""
        return (self.frame_bits + 7) // 8

    @property
    def subsampled(self) -> bool:
        """Are two pixels written as Y Y Cb Cr? True of uncompressed pixels only. Source: PS3.3 C.7.6.3.1.2."""
        return self.photometric in ("YBR_FULL_422", "YBR_PARTIAL_422") and self.samples == 3

    def decoded(self) -> Description:
        """Return the description of a frame that was decoded: by pixel, chroma for each."""
        photometric = {"YBR_RCT": "RGB", "YBR_ICT": "RGB", "YBR_FULL_422": "YBR_FULL"}.get(self.photometric)
        return replace(self, photometric=photometric or self.photometric, planar=False)


def describe(elements: Sequence[Element]) -> Description:
    """Return what `elements` say about their pixels; raises PixelsRefused ``no-pixels``, ``damaged``, ``too-large``."""
    rows, columns, allocated = (integer(elements, tag) for tag in (0x00280010, 0x00280011, 0x00280100))
    if not rows or not columns or not allocated:
        raise PixelsRefused("this object has no image", code="no-pixels")
    try:
        frames = int(text(elements, 0x00280008) or "1")
    except ValueError:
        raise PixelsRefused("Number of Frames is no number", code="damaged") from None
    stored = integer(elements, 0x00280101) or allocated
    samples = integer(elements, 0x00280002) or 1
    if samples not in (1, 3, 4) or allocated not in (1, 8, 16, 32, 64) or stored > allocated:
        raise PixelsRefused("pixels of this kind are not read", code="unsupported")
    description = Description(
        rows=rows, columns=columns, samples=samples, bits_allocated=allocated, bits_stored=stored,
        signed=integer(elements, 0x00280103) == 1, photometric=text(elements, 0x00280004).upper(),
        planar=integer(elements, 0x00280006) == 1 and samples > 1, frames=max(frames, 1),
    )
    if description.frame_bytes > MAX_FRAME_BYTES or description.frames > MAX_FRAMES:
        raise PixelsRefused("the image claims to be larger than is decoded", code="too-large")
    return description


def pixel_element(elements: Sequence[Element]) -> Element | None:
    """Return Pixel Data, if there is any."""
    return find(elements, 0x7FE00010)


@dataclass(frozen=True, slots=True)
class Claim:
    """The size a codestream gives itself."""

    rows: int
    columns: int
    samples: int
    precision: int
    signed: bool = False
    #: JPEG only: the number of the frame header, 0xC3 for lossless.
    process: int = 0


def check_stream(data: bytes, coding: Coding, description: Description) -> Claim | None:
    """Compare the codestream's own header with `description`; None for RLE, which states no size.

    Raises PixelsRefused ``damaged`` when they differ: a stream of 146 bytes may claim 40000 x 40000.
    """
    if coding is Coding.RLE:
        return None
    claim = _claim_2000(data) if coding in (Coding.JPEG_2000, Coding.HTJ2K) else _claim_jpeg(data)
    if (claim.rows, claim.columns, claim.samples) != (description.rows, description.columns, description.samples):
        raise PixelsRefused("the size in the compressed image is not the one the data set states", code="damaged")
    if not 1 <= claim.precision <= description.bits_allocated:
        raise PixelsRefused("the compressed image has more bits than the data set states", code="damaged")
    return claim


def _claim_jpeg(data: bytes) -> Claim:
    """Read the frame header of a JPEG or JPEG-LS stream. Source: ISO 10918-1 B.2.2, ISO 14495-1 C.2.2."""
    position, end = 2, min(len(data), _SEARCHED_BYTES)
    if data[:2] != b"\xff\xd8":
        raise PixelsRefused("the compressed image does not begin as JPEG does", code="damaged")
    while position + 4 <= end:
        if data[position] != 0xFF:
            break
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
            continue
        if marker in _JPEG_ALONE:
            position += 2
            continue
        if marker in _JPEG_FRAMES and position + 10 <= len(data):
            precision, rows, columns, samples = struct.unpack_from(">BHHB", data, position + 4)
            return Claim(rows, columns, samples, precision, process=marker)
        if marker == 0xDA:
            break
        position += 2 + int(struct.unpack_from(">H", data, position + 2)[0])
    raise PixelsRefused("the compressed image has no frame header", code="damaged")


def _claim_2000(data: bytes) -> Claim:
    """Read the SIZ segment of a JPEG 2000 stream, also one inside a JP2 file. Source: ISO 15444-1 A.5.1."""
    start = data[:_SEARCHED_BYTES].find(b"\xff\x4f\xff\x51")
    if start < 0 or start + 4 + 38 + 3 > len(data):
        raise PixelsRefused("the compressed image does not begin as JPEG 2000 does", code="damaged")
    width, height, x0, y0, tile_width, tile_height = struct.unpack_from(">6I", data, start + 8)
    samples, precision = struct.unpack_from(">HB", data, start + 40)
    parts = data[start + 42 : start + 42 + 3 * samples]
    if samples > 4 or len(parts) < 3 * samples or width <= x0 or height <= y0 or not tile_width or not tile_height:
        raise PixelsRefused("the size in the compressed image is garbage", code="damaged")
    if any(parts[at : at + 3] != bytes((precision, 1, 1)) for at in range(0, len(parts), 3)):
        raise PixelsRefused("the compressed image has components of different kinds", code="unsupported")
    return Claim(height - y0, width - x0, samples, (precision & 0x7F) + 1, signed=precision > 0x7F)
