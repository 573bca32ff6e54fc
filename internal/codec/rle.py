"""DICOM's run length encoding of one frame, in both directions; every length checked.

Imports errors. Changes never: the standard is frozen. Source: PS3.5 annex G.
"""

from __future__ import annotations

import struct
from itertools import pairwise
from typing import Any

import numpy
from numpy.typing import NDArray

from internal.errors import PixelsRefused

_HEADER_BYTES = 64
_MAX_SEGMENTS = 15


def decode(data: bytes, pixels: int, samples: int, sample_bytes: int) -> bytes:
    """Return one frame by pixel, little endian words of `sample_bytes`; raises PixelsRefused ``damaged``."""
    expected = samples * sample_bytes
    if len(data) < _HEADER_BYTES:
        raise _damaged()
    count, *offsets = struct.unpack_from("<16I", data)
    if count != expected or count > _MAX_SEGMENTS:
        raise _damaged()
    bounds = [*offsets[:count], len(data)]
    if bounds[0] < _HEADER_BYTES or any(low > high for low, high in pairwise(bounds)):
        raise _damaged()
    frame: NDArray[Any] = numpy.empty((pixels, samples, sample_bytes), dtype=numpy.uint8)
    for number, (low, high) in enumerate(pairwise(bounds)):
        plane = _unpack(data[low:high], pixels)
        # The most significant byte comes first.
        frame[:, number // sample_bytes, sample_bytes - 1 - number % sample_bytes] = numpy.frombuffer(plane, "u1")
    return bytes(frame.data)


def _unpack(segment: bytes, size: int) -> bytearray:
    plane = bytearray()
    position, end = 0, len(segment)
    while len(plane) < size and position < end:
        code = segment[position]
        position += 1
        if code < 128:
            if position + code + 1 > end:
                raise _damaged()
            plane += segment[position : position + code + 1]
            position += code + 1
        elif code > 128:
            if position >= end:
                raise _damaged()
            plane += segment[position : position + 1] * (257 - code)
            position += 1
    if len(plane) < size:
        raise _damaged()
    del plane[size:]
    return plane


def encode(frame: bytes, rows: int, columns: int, samples: int, sample_bytes: int) -> bytes:
    """Return the RLE of a frame that lies by pixel in little endian words; runs do not cross rows."""
    planes = numpy.frombuffer(frame, "u1").reshape(rows, columns, samples, sample_bytes)
    segments: list[bytearray] = []
    for sample in range(samples):
        for byte in reversed(range(sample_bytes)):
            plane = numpy.ascontiguousarray(planes[:, :, sample, byte])
            segment = bytearray()
            for row in plane:
                _pack(row, segment)
            segment += b"\x00" * (len(segment) % 2)
            segments.append(segment)
    if len(segments) > _MAX_SEGMENTS:
        raise PixelsRefused("pixels this deep have no RLE form", code="unsupported")
    offsets, at = [], _HEADER_BYTES
    for segment in segments:
        offsets.append(at)
        at += len(segment)
    header = struct.pack("<16I", len(segments), *offsets, *[0] * (_MAX_SEGMENTS - len(offsets)))
    return header + b"".join(segments)


def _pack(row: NDArray[Any], out: bytearray) -> None:
    """Append one row: runs of 3 and more as runs, what lies between as it is."""
    data = row.tobytes()
    edges: NDArray[Any] = numpy.flatnonzero(numpy.diff(row)) + 1
    starts = [0, *edges.tolist(), len(data)]
    literal = 0
    for low, high in pairwise(starts):
        if high - low < 3:
            continue
        _literal(data[literal:low], out)
        _run(data[low], high - low, out)
        literal = high
    _literal(data[literal:], out)


def _literal(data: bytes, out: bytearray) -> None:
    for at in range(0, len(data), 128):
        piece = data[at : at + 128]
        out.append(len(piece) - 1)
        out += piece


def _run(value: int, length: int, out: bytearray) -> None:
    while length > 1:
        size = min(length, 128)
        out += bytes((257 - size, value))
        length -= size
    if length:
        out += bytes((0, value))


def _damaged() -> PixelsRefused:
    return PixelsRefused("the run length encoded image is damaged", code="damaged")
