"""One instance rewritten for one destination: the new header, and what of the original is copied behind it.

Layer 1, over rules and elements: a function of the bytes, the rules, the keys and what was looked up. `frozen` calls
it and reads the pieces. Changes when a rewrite has to give the same bytes in another way; that needs a new ENGINE.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from internal import scan
from internal.element_bytes import deflated
from internal.elements import DataSet, Piece
from internal.errors import NotDicom
from internal.model import Header
from internal.rules import EditFailed, Edits, Facts, Keys, Rule, RuleSet
from internal.rules.edits import Find, Mask
from internal.rules.paths import text_at

#: Part of every recipe: other bytes for the same rules are another engine.
ENGINE: Final = 1
#: Spans up to this length are taken into the new header, longer ones are copied from the original while sending.
_INLINE_BYTES: Final = 64 * 1024
_MAX_PIECES: Final = 200_000
_PIXELS: Final = 0x7FE00010
#: Where one of these has changed, the whole header is read anew.
_ANEW: Final = scan.UID_TAGS | {scan.CHARACTER_SET}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What leaves after the file meta: `pieces` in order, spans counted from the data set's first byte.

    `found`, `pseudonyms` and `dataset` as in Edits; `changed` names the attributes that differ from what was received.
    """

    pieces: tuple[Piece, ...]
    header: Header
    fired: tuple[str, ...]
    changed: tuple[str, ...]
    dataset: DataSet
    found: Mapping[str, str | None] = field(repr=False)
    pseudonyms: Mapping[str, str] = field(repr=False)

    @property
    def size_bytes(self) -> int:
        """Return the length of the new data set."""
        return sum(len(one) if isinstance(one, bytes) else one[1] - one[0] for one in self.pieces)


def rewrite(
    received: DataSet, facts: Facts, rules: RuleSet, firing: Sequence[Rule], find: Find, keys: Keys,
    found: Mapping[str, str | None] | None = None,
) -> Rewritten:
    """Do what the firing rules say to a copy of the data set as received.

    `found`: what an earlier attempt looked up. Raises EditFailed (the study is held with its text) and Transient (a
    look-up that cannot answer now).
    """
    edits = Edits(received.copy(), facts, find, keys, dict(found or {}))
    try:
        fired = rules.apply(firing, edits)
        edits.finish(received)
        parts = edits.dataset.pieces()
        if edits.masks:
            parts = list(_masked(parts, edits.dataset, edits.masks))
        header = _header(edits.dataset, facts.header)
        return Rewritten(tuple(_settled(received, parts, header)), header, fired, tuple(edits.changed), edits.dataset,
                         edits.found, edits.pseudonyms)
    except NotDicom as error:
        raise EditFailed(f"the data set cannot be taken apart: {error}") from None


def _header(dataset: DataSet, received: Header) -> Header:
    """Return the index fields of the new data set, as the scanner would read them."""
    changed = scan.FIELDS.keys() & dataset.touched
    anew = not changed.isdisjoint(_ANEW)
    values = {tag: value for tag in (scan.FIELDS if anew else changed)
              if (value := dataset.raw(tag)) is not None and len(value) <= scan.MAX_VALUE_BYTES}
    if anew:
        return scan.header_of(values, received.transfer_syntax_uid)
    empty = dict.fromkeys(changed - values.keys(), b"")
    return replace(received, **scan.fields_of(values | empty, received.character_set))


def _inline(dataset: DataSet, parts: Sequence[Piece]) -> Iterator[bytes]:
    for part in parts:
        yield part if isinstance(part, bytes) else dataset.source.read(*part)


def _settled(received: DataSet, parts: Sequence[Piece], header: Header) -> Iterator[Piece]:
    """Take short spans into memory, so that what is read later is long; a deflated data set is stored again."""
    if header.transfer_syntax_uid in scan.DEFLATED:
        yield deflated(b"".join(_inline(received, parts)))
        return
    pending: list[bytes] = []
    for part in parts:
        if isinstance(part, bytes):
            pending.append(part)
        elif part[1] - part[0] <= _INLINE_BYTES:
            pending.append(received.source.read(*part))
        else:
            if pending:
                yield b"".join(pending)
                pending = []
            yield part
    if pending:
        yield b"".join(pending)


# --- masking -------------------------------------------------------------------------------------------------------

@dataclass(frozen=True, slots=True)
class _Frames:
    """How uncompressed pixels lie: `planes` of `rows` x `columns` samples groups of `step_bytes` each."""

    rows: int
    columns: int
    planes: int
    step_bytes: int

    @property
    def row_bytes(self) -> int:
        return self.columns * self.step_bytes

    @property
    def plane_bytes(self) -> int:
        return self.rows * self.row_bytes


def _masked(parts: Sequence[Piece], dataset: DataSet, masks: Sequence[Mask]) -> Iterator[Piece]:
    """Replace the masked rows of every frame by zeros; raises EditFailed where the pixels are not plain."""
    frames = _frames(dataset)
    element = dataset.find(_PIXELS)
    assert element is not None  # _frames
    for part in parts:
        if isinstance(part, bytes) or not part[0] <= element.value_at < part[1]:
            yield part
            continue
        at = part[0]
        for start, end in _holes(frames, masks):
            yield at, element.value_at + start
            yield bytes(end - start)
            at = element.value_at + end
        yield at, part[1]


def _holes(frames: _Frames, masks: Sequence[Mask]) -> list[tuple[int, int]]:
    """Return the byte ranges of the pixel data that are blacked out, in order and joined."""
    if any(mask.left >= frames.columns or mask.top >= frames.rows for mask in masks):
        raise EditFailed("a region to be masked lies outside the image", "may-show-patient")
    holes = sorted(
        (plane * frames.plane_bytes + row * frames.row_bytes + mask.left * frames.step_bytes,
         plane * frames.plane_bytes + row * frames.row_bytes
         + min(mask.left + mask.width, frames.columns) * frames.step_bytes)
        for mask in masks for plane in range(frames.planes)
        for row in range(mask.top, min(mask.top + mask.height, frames.rows)))
    joined: list[tuple[int, int]] = []
    for start, end in holes:
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    if len(joined) > _MAX_PIECES:
        raise EditFailed("there is too much to mask in one object")
    return joined


def _frames(dataset: DataSet) -> _Frames:
    element = dataset.find(_PIXELS)
    if element is None:
        raise EditFailed("there are no pixels that could be masked")
    if element.undefined:
        raise EditFailed("regions of compressed images cannot be masked here")
    rows, columns, bits = (_number(dataset, tag, 0) for tag in (0x00280010, 0x00280011, 0x00280100))
    samples, frames = _number(dataset, 0x00280002, 1), _number(dataset, 0x00280008, 1)
    by_plane = samples > 1 and _number(dataset, 0x00280006, 0) == 1
    photometric = text_at(dataset, 0x00280004, "") or ""
    if not rows or not columns or bits not in (8, 16, 32) or "_422" in photometric or "_420" in photometric:
        raise EditFailed("pixels of this form cannot be masked")
    planes, together = (frames * samples, 1) if by_plane else (frames, samples)
    found = _Frames(rows, columns, planes, together * bits // 8)
    length = element.value_end - element.value_at
    if found.plane_bytes * planes not in (length, length - 1):
        raise EditFailed("the pixels are not as many as the header says")
    return found


def _number(dataset: DataSet, tag: int, default: int) -> int:
    text = text_at(dataset, tag, "")
    return int(text) if text and text.strip().isdigit() else default
