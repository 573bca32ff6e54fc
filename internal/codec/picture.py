"""A small picture of one frame for people to recognise, not to diagnose from.

Runs inside the limited child. Imports the modules of the codec below. Changes when pictures look different.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import imagecodecs
import numpy
from numpy.typing import NDArray

from internal.codec import lookup
from internal.codec.description import Description
from internal.codec.elements import Element
from internal.codec.frames import Frames
from internal.codec.reading import opened
from internal.codec.syntaxes import Coding
from internal.errors import PixelsRefused

MIN_EDGE: Final = 16
MAX_EDGE: Final = 2048
_JPEG_LEVEL: Final = 85


def draw(source: Path, *, edge: int, frame: int | None, kind: str) -> dict[str, Any]:
    """Return frame `frame` (from 0; None: the middle one) of `source` as a picture of at most `edge` pixels a side.

    `kind` is ``jpeg`` or ``png``. Values are shown as the object asks (modality and VOI transformation, palette,
    photometric interpretation), spread over their range when it does not ask. Returns picture (base64), frame, frames,
    height and width. Raises PixelsRefused.
    """
    with opened(source) as original:
        frames = original.frames()
        count = frames.description.frames
        number = count // 2 if frame is None else frame
        if not 0 <= number < count:
            raise PixelsRefused("the object has no such frame", code="no-pixels")
        image = _eight_bits(frames, number, original.elements, min(max(edge, MIN_EDGE), MAX_EDGE))
    data = imagecodecs.png_encode(image) if kind == "png" else imagecodecs.jpeg8_encode(image, level=_JPEG_LEVEL)
    return {"picture": base64.b64encode(data).decode("ascii"), "frame": number, "frames": count,
            "height": image.shape[0], "width": image.shape[1]}


def _eight_bits(frames: Frames, number: int, elements: Sequence[Element], edge: int) -> NDArray[Any]:
    description = frames.description if frames.coding is Coding.NATIVE else frames.description.decoded()
    words = _array(frames, number, description)
    if description.photometric == "PALETTE COLOR":
        return _smaller(lookup.palette(words, elements), edge)
    if description.samples >= 3:
        return _smaller(lookup.rgb(words, description), edge)
    levels = lookup.scope(elements, number)
    brightness = lookup.grey(words, description, levels)
    return numpy.rint(_smaller(brightness * 255, edge)).astype(numpy.uint8)


def _array(frames: Frames, number: int, description: Description) -> NDArray[Any]:
    """Return the frame's samples as numbers, sign and unused bits settled."""
    data = frames.words(number)
    rows, columns, bits = description.rows, description.columns, description.bits_allocated
    if bits == 1:
        skip = number * description.frame_bits % 8
        pixels = numpy.unpackbits(numpy.frombuffer(data, "u1"), bitorder="little")
        return pixels[skip : skip + rows * columns].reshape(rows, columns).astype(numpy.int32)
    if frames.coding is Coding.NATIVE and description.subsampled:
        quads = numpy.frombuffer(data, "u1")[: rows * columns * 2].reshape(rows, columns // 2, 4)
        pairs = numpy.stack([quads[..., (0, 2, 3)], quads[..., (1, 2, 3)]], axis=2)
        return pairs.reshape(rows, columns, 3)
    kind = f"<{'i' if description.signed else 'u'}{bits // 8}"
    shape = (rows, columns) + ((description.samples,) if description.samples > 1 else ())
    words = numpy.frombuffer(data, kind)[: rows * columns * description.samples].reshape(shape)
    if description.bits_stored == bits:
        return words
    spare = bits - description.bits_stored  # unused high bits may hold overlays
    return (words.astype(kind) << spare) >> spare


def _smaller(image: NDArray[Any], edge: int) -> NDArray[Any]:
    """Return `image` averaged down to at most `edge` pixels a side."""
    step = -(-max(image.shape[:2]) // edge)
    if step > 1:
        rows, columns = (-(-size // step) * step for size in image.shape[:2])
        padding = [(0, rows - image.shape[0]), (0, columns - image.shape[1])] + [(0, 0)] * (image.ndim - 2)
        wide = numpy.pad(image, padding, mode="edge").astype(numpy.float32)
        wide = wide.reshape(rows // step, step, columns // step, step, *image.shape[2:]).mean(axis=(1, 3))
        image = wide if image.dtype != numpy.uint8 else numpy.rint(wide).astype(numpy.uint8)
    return numpy.ascontiguousarray(image)
