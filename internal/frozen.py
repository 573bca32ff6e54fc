"""The bytes of an item as they leave: the same at every attempt, made by a recipe instead of a copy.

Layer 4: reads the spool through `dicomfile`. The recipe "plain" is canonical file meta and the data set exactly as
received; "rewrite" names the rules and what was looked up: the header is made again, pixel bytes are copied from the
original. Changes when bytes can leave in a new form.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, Protocol

from internal import dicomfile
from internal.elements import Piece
from internal.errors import BytesDamaged
from internal.model import Header, Instance, Item
from internal.spool import Spool

PLAIN: Mapping[str, Any] = {"kind": "plain"}
REWRITE = "rewrite"
#: Small: what is asked for in larger pieces is read straight into them.
_BUFFER_BYTES = 64 * 1024
#: The largest buffer that is of use to `freeze`.
READ_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class NewForm:
    """What an item is rewritten to: its pieces after the file meta, what they say of it, and the recipe for them."""

    pieces: tuple[Piece, ...]
    header: Header
    recipe: Mapping[str, Any]
    pseudonyms: Mapping[str, str] = field(repr=False)

    @property
    def new_bytes(self) -> int:
        """Return how much of it is held in memory."""
        return sum(len(one) for one in self.pieces if isinstance(one, bytes))


class Rewriter(Protocol):
    """What changes an item on its way out."""

    def rewrite(self, file: BinaryIO, item: Item) -> NewForm | None:
        """Return the new form of an item, None if it leaves as it came; `file` is its spool file.

        Raises Refused with the cause if it cannot be done, and Transient if it cannot be done now.
        """


@dataclass(frozen=True, slots=True)
class FrozenItem:
    """An item whose bytes are fixed; `open` may be called again for another attempt (ports.Frozen).

    `pseudonyms` are to be written down in the transaction that marks it as sent.
    """

    item: Item
    sha256: str
    size_bytes: int
    header: Header
    pieces: tuple[Piece, ...]
    spool: Spool
    on_read: Callable[[int], None]
    pseudonyms: Mapping[str, str] = field(default_factory=dict, repr=False)

    def open(self) -> BinaryIO:
        """Return a reader over exactly `size_bytes` bytes; raises BytesMissing when the file is gone."""
        file = self.spool.open_entry(self.item.instance.id, buffered=False)
        reader = _FrozenReader(self.pieces, file, self.item.instance.dataset_offset, self.on_read)
        return io.BufferedReader(reader, _BUFFER_BYTES)


class _FrozenReader(io.RawIOBase):
    """Reads piece after piece: new bytes, and spans of the data set that begins at `offset` of `file`."""

    def __init__(
        self, pieces: tuple[Piece, ...], file: BinaryIO, offset: int, on_read: Callable[[int], None],
    ) -> None:
        self._pieces: Iterator[Piece] = iter(pieces)
        self._file = file
        self._offset = offset
        self._new: memoryview | None = None
        self._left = 0
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._begin(piece)
        view = memoryview(buffer)[: self._left]
        if self._new is not None:
            count = len(view)
            view[:] = self._new[len(self._new) - self._left :][:count]
        else:
            count = int(self._file.readinto(view))  # type: ignore[attr-defined]
        self._left = self._left - count if count else 0
        self._on_read(count)
        return count

    def _begin(self, piece: Piece) -> None:
        if isinstance(piece, bytes):
            self._new, self._left = memoryview(piece), len(piece)
        else:
            self._new, self._left = None, piece[1] - piece[0]
            self._file.seek(self._offset + piece[0])

    def close(self) -> None:
        self._file.close()
        super().close()


def freeze(
    spool: Spool, item: Item, buffer: memoryview, on_read: Callable[[int], None], rewriter: Rewriter | None = None,
) -> FrozenItem:
    """Fix the bytes of `item` and check them against the index, in one reading unless pieces change places.

    They are read through `buffer`, READ_BYTES at most; `on_read` is told of each piece that is read from the result.

    Raises BytesMissing when the file is gone; BytesDamaged when its data set no longer has the SHA-256 that was
    recorded at indexing, or when the result differs from what an earlier attempt sent; what `rewriter` raises.
    """
    instance = item.instance
    with spool.open_entry(instance.id) as file:
        rewritten = rewriter.rewrite(file, item) if rewriter is not None else None
        header = rewritten.header if rewritten else instance.header
        meta = dicomfile.canonical_meta(header.sop_class_uid, header.sop_uid, header.transfer_syntax_uid)
        body: tuple[Piece, ...] = rewritten.pieces if rewritten else ((0, instance.dataset_bytes),)
        pieces = (meta, *body)
        sha256 = _hash(file, instance, pieces, buffer)
    if item.sha256 and item.sha256 != sha256:
        raise BytesDamaged(f"instance {instance.header.sop_uid} is no longer what was sent before")
    size_bytes = sum(len(one) if isinstance(one, bytes) else one[1] - one[0] for one in pieces)
    recipe = rewritten.recipe if rewritten else PLAIN
    sent = replace(item, sha256=sha256, size_bytes=size_bytes, recipe=recipe)
    return FrozenItem(sent, sha256, size_bytes, header, pieces, spool, on_read,
                      rewritten.pseudonyms if rewritten else {})


def _hash(file: BinaryIO, instance: Instance, pieces: tuple[Piece, ...], buffer: memoryview) -> str:
    """Return the SHA-256 of the pieces; raises BytesDamaged unless the data set is what was received."""
    reading = _Reading(file, instance, buffer)
    whole = hashlib.sha256()
    for piece in pieces:
        if isinstance(piece, bytes):
            whole.update(piece)
        elif piece[0] >= reading.position:
            reading.go_on(piece[0], None)
            reading.go_on(piece[1], whole)
        else:
            reading.again(piece, whole)
    reading.go_on(instance.dataset_bytes + 1, None)
    if reading.position != instance.dataset_bytes or reading.dataset.hexdigest() != instance.sha256:
        raise BytesDamaged(f"the file of instance {instance.header.sop_uid} is not what was received")
    return whole.hexdigest()


class _Reading:
    """Goes through the data set once, hashing all of it, and what is wanted a second time."""

    def __init__(self, file: BinaryIO, instance: Instance, buffer: memoryview) -> None:
        self._file = file
        self._offset = instance.dataset_offset
        self._buffer = buffer
        self.dataset = hashlib.sha256()
        self.position = 0
        file.seek(self._offset)

    def go_on(self, end: int, also: Any) -> None:
        """Read up to `end`, or to the end of the file."""
        while self.position < end:
            count = self._file.readinto(self._buffer[: end - self.position])  # type: ignore[attr-defined]
            if not count:
                return
            self.dataset.update(self._buffer[:count])
            if also is not None:
                also.update(self._buffer[:count])
            self.position += count

    def again(self, span: tuple[int, int], also: Any) -> None:
        """Hash a span that lies behind, and come back."""
        self._file.seek(self._offset + span[0])
        left = span[1] - span[0]
        while left and (count := self._file.readinto(self._buffer[:left])):  # type: ignore[attr-defined]
            also.update(self._buffer[:count])
            left -= count
        self._file.seek(self._offset + self.position)
