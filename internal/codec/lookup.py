"""From stored numbers to grey and colour: modality and VOI transformations, palettes, YBR.

Pure functions on arrays and elements. Imports elements, description and errors. Changes when DICOM describes display in
another way. Source: PS3.3 C.7.6.3, C.7.9, C.11.1, C.11.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

from internal.codec.description import Description
from internal.codec.elements import Element, Span, find, integer, text
from internal.errors import PixelsRefused

_SHARED = 0x52009229
_PER_FRAME = 0x52009230
_MAX_ENTRIES = 65536


def scope(elements: Sequence[Element], frame: int) -> list[Sequence[Element]]:
    """Return the levels that speak about `frame`, the most specific first: its functional groups, then the rest."""
    levels: list[Sequence[Element]] = []
    for tag, number in ((_PER_FRAME, frame), (_SHARED, 0)):
        groups = find(elements, tag)
        items = groups.items if groups is not None else None
        if items and number < len(items):
            levels += [item for group in items[number] for item in (group.items or ())[:1]]
    return [*levels, elements]


def _numbers(levels: Sequence[Sequence[Element]], tag: int) -> list[float]:
    for level in levels:
        if value := text(level, tag):
            try:
                numbers = [float(part) for part in value.split("\\")]
            except ValueError:
                continue
            if all(math.isfinite(number) for number in numbers):
                return numbers
    return []


def grey(words: NDArray[Any], description: Description, levels: Sequence[Sequence[Element]]) -> NDArray[Any]:
    """Return stored numbers as brightness from 0 to 1 (float32): modality, then VOI transformation or the range."""
    top = levels[-1]
    values = words.astype(numpy.float32)
    first = _table(levels, 0x00283000)
    if first is not None:
        values = _through(words, first).astype(numpy.float32)
    else:
        slope, intercept = _numbers(levels, 0x00281053), _numbers(levels, 0x00281052)
        values = values * numpy.float32(slope[0] if slope else 1) + numpy.float32(intercept[0] if intercept else 0)
    second = _table(levels, 0x00283010)
    center, width = _numbers(levels, 0x00281050), _numbers(levels, 0x00281051)
    if second is not None:
        values = _stretched(_through(numpy.rint(values).astype(numpy.int64), second).astype(numpy.float32), None)
    elif center and width and width[0] > 0:
        function = next((name for level in levels if (name := text(level, 0x00281056))), "LINEAR")
        values = _window(values, center[0], width[0], function)
    else:
        values = _stretched(values, words != _padding(top, description))
    dark_is_high = description.photometric == "MONOCHROME1"
    if text(top, 0x20500020) == "INVERSE" and not dark_is_high:
        dark_is_high = True
    return 1 - values if dark_is_high else values


def _padding(top: Sequence[Element], description: Description) -> int:
    value = integer(top, 0x00280120)
    if value is None:
        return -(1 << 40)
    return value - 0x10000 if description.signed and value >= 0x8000 else value


def _window(values: NDArray[Any], center: float, width: float, function: str) -> NDArray[Any]:
    """Source: PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    if function == "SIGMOID":
        return 1 / (1 + numpy.exp(numpy.clip(-4 * (values - center) / width, -80, 80)))
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, max(width - 1, 1e-6)
    return numpy.clip((values - center) / width + 0.5, 0, 1)


def _stretched(values: NDArray[Any], counted: NDArray[Any] | None) -> NDArray[Any]:
    """Spread what is there over the whole range, the outermost half percent left out."""
    sample = values if counted is None or not counted.any() else values[counted]
    low, high = numpy.percentile(sample.ravel()[:: max(1, sample.size // 250_000)], (0.5, 99.5))
    if high <= low:
        low, high = float(sample.min()), float(sample.max())
    if high <= low:
        return numpy.zeros_like(values) if high <= 0 else numpy.full_like(values, 0.5)
    return numpy.clip((values - low) / (high - low), 0, 1)


def _table(levels: Sequence[Sequence[Element]], tag: int) -> tuple[int, NDArray[Any]] | None:
    """Return (first value mapped, entries) of the first LUT of the sequence `tag`."""
    for level in levels:
        sequence = find(level, tag)
        if sequence is not None and sequence.items:
            return _entries(sequence.items[0], 0x00283002, 0x00283006)
    return None


def _entries(elements: Sequence[Element], descriptor: int, data: int) -> tuple[int, NDArray[Any]]:
    shape, values = find(elements, descriptor), find(elements, data)
    if shape is None or values is None or not isinstance(shape.value, bytes) or len(shape.value) != 6 \
            or not isinstance(values.value, bytes):
        raise PixelsRefused("a look-up table is damaged", code="damaged")
    count, first, bits = numpy.frombuffer(shape.value, "<u2").tolist()
    count = count or _MAX_ENTRIES
    if shape.vr == b"SS" and first >= 0x8000:
        first -= 0x10000
    if len(values.value) < 2 * count and len(values.value) >= count and bits <= 8:
        return first, numpy.frombuffer(values.value, "u1")[:count]
    if len(values.value) < 2 * count:
        raise PixelsRefused("a look-up table is shorter than it says", code="damaged")
    return first, numpy.frombuffer(values.value, "<u2")[:count]


def _through(words: NDArray[Any], table: tuple[int, NDArray[Any]]) -> NDArray[Any]:
    first, entries = table
    return entries[numpy.clip(words.astype(numpy.int64) - first, 0, len(entries) - 1)]


def palette(words: NDArray[Any], elements: Sequence[Element]) -> NDArray[Any]:
    """Return stored numbers as 8-bit RGB through the palette. Source: PS3.3 C.7.9 (segmented ones: C.7.9.2)."""
    colours = []
    for number in range(3):
        plain, segmented = 0x00281201 + number, 0x00281221 + number
        if find(elements, plain) is not None:
            first, entries = _entries(elements, 0x00281101 + number, plain)
        else:
            first, entries = _segmented(elements, 0x00281101 + number, segmented)
        bits = 8 if entries.dtype.itemsize == 1 or int(entries.max(initial=0)) < 256 else 16
        colours.append((_through(words, (first, entries)) >> (bits - 8)).astype(numpy.uint8))
    return numpy.stack(colours, axis=-1)


def _segmented(elements: Sequence[Element], descriptor: int, data: int) -> tuple[int, NDArray[Any]]:
    shape, values = find(elements, descriptor), find(elements, data)
    if shape is None or values is None or isinstance(shape.value, Span) or isinstance(values.value, Span) \
            or len(shape.value) != 6 or len(values.value) % 2:
        raise PixelsRefused("the palette is damaged", code="damaged")
    count, first, _ = numpy.frombuffer(shape.value, "<u2").tolist()
    source = numpy.frombuffer(values.value, "<u2").tolist()
    entries: list[int] = []
    position = 0
    while position + 2 < len(source) and len(entries) < _MAX_ENTRIES:
        kind, length = source[position], source[position + 1]
        if kind == 0:
            entries += source[position + 2 : position + 2 + length]
            position += 2 + length
        elif kind == 1 and entries:
            start, end = entries[-1], source[position + 2]
            entries += [start + (end - start) * step // max(length, 1) for step in range(1, length + 1)]
            position += 3
        else:
            raise PixelsRefused("palettes that refer to themselves are not drawn", code="unsupported")
    if len(entries) < (count or _MAX_ENTRIES):
        raise PixelsRefused("the palette is shorter than it says", code="damaged")
    return first, numpy.array(entries, dtype=numpy.uint16)


def rgb(words: NDArray[Any], description: Description) -> NDArray[Any]:
    """Return three samples per pixel as 8-bit RGB. Source: PS3.3 C.7.6.3.1.2 (YBR_FULL: ITU-R BT.601, full range)."""
    pixels = (words >> max(description.bits_stored - 8, 0)).astype(numpy.uint8)[..., :3]
    if not description.photometric.startswith("YBR_FULL"):
        return pixels
    y, blue, red = (pixels[..., at].astype(numpy.float32) for at in range(3))
    blue, red = blue - 128, red - 128
    planes = (y + 1.402 * red, y - 0.344136 * blue - 0.714136 * red, y + 1.772 * blue)
    return numpy.stack([numpy.clip(numpy.rint(plane), 0, 255).astype(numpy.uint8) for plane in planes], axis=-1)
