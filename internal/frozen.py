"""The bytes of an item as they leave: the same at every attempt, made by a recipe instead of a copy.

Layer 3: reads the spool through `dicomfile`. Today's only recipe is "plain": canonical file meta and the data set
exactly as received. Header rewrites and transcodings add recipes here. Changes when bytes can leave in a new form.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO

from internal import dicomfile
from internal.errors import BytesDamaged
from internal.model import Header, Instance, Item
from internal.spool import Spool

PLAIN: Mapping[str, Any] = {"kind": "plain"}
_CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class FrozenItem:
    """An item whose bytes are fixed; `open` may be called again for another attempt (ports.Frozen)."""

    item: Item
    sha256: str
    size_bytes: int
    meta: bytes
    spool: Spool
    on_read: Callable[[int], None]

    @property
    def header(self) -> Header:
        """Return the index fields of the bytes that leave."""
        return self.item.instance.header

    def open(self) -> BinaryIO:
        """Return a reader over exactly `size_bytes` bytes; raises BytesMissing when the file is gone."""
        file = self.spool.open_entry(self.item.instance.id)
        file.seek(self.item.instance.dataset_offset)
        return io.BufferedReader(_FrozenReader(self.meta, file, self.size_bytes, self.on_read), _CHUNK_BYTES)


class _FrozenReader(io.RawIOBase):
    """Reads the file meta, then the data set, and never more than was promised."""

    def __init__(self, meta: bytes, file: BinaryIO, size_bytes: int, on_read: Callable[[int], None]) -> None:
        self._meta = io.BytesIO(meta)
        self._file = file
        self._left = size_bytes
        self._on_read = on_read

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer)[: self._left]
        count = self._meta.readinto(view) or self._file.readinto(view)  # type: ignore[attr-defined]
        self._left -= count
        self._on_read(count)
        return int(count)

    def close(self) -> None:
        self._file.close()
        super().close()


def freeze(spool: Spool, item: Item, on_read: Callable[[int], None]) -> FrozenItem:
    """Fix the bytes of `item` and check them against the index in one reading.

    Raises BytesMissing when the file is gone; BytesDamaged when its data set no longer has the SHA-256 that was
    recorded at indexing, or when the result differs from what an earlier attempt sent.
    """
    instance = item.instance
    meta = dicomfile.canonical_meta(
        instance.header.sop_class_uid, instance.header.sop_uid, instance.header.transfer_syntax_uid
    )
    sha256 = _hash(spool, instance, meta)
    if item.sha256 and item.sha256 != sha256:
        raise BytesDamaged(f"instance {instance.header.sop_uid} is no longer what was sent before")
    size_bytes = len(meta) + instance.dataset_bytes
    sent = replace(item, sha256=sha256, size_bytes=size_bytes, recipe=PLAIN)
    return FrozenItem(sent, sha256, size_bytes, meta, spool, on_read)


def _hash(spool: Spool, instance: Instance, meta: bytes) -> str:
    dataset, whole = hashlib.sha256(), hashlib.sha256(meta)
    size = 0
    buffer = memoryview(bytearray(min(_CHUNK_BYTES, max(instance.dataset_bytes, 1))))
    with spool.open_entry(instance.id) as file:
        file.seek(instance.dataset_offset)
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            dataset.update(buffer[:count])
            whole.update(buffer[:count])
            size += count
    if size != instance.dataset_bytes or dataset.hexdigest() != instance.sha256:
        raise BytesDamaged(f"the file of instance {instance.header.sop_uid} is not what was received")
    return whole.hexdigest()
