"""The mark by which a whole file of tmp/ is told from a half written one after a crash: id, length and checksum.

Layer 1, imports nothing of ours. Used by the spool's writer, which puts it, and by leftovers, which reads it. It is an
extended attribute: it becomes durable with the file's own fsync, and the file's bytes stay those of an instance.
The checksum (XXH3, 64 bit) finds pages that a power cut has taken from a file whose attribute it has left; it is no
protection against people. Changes when a whole file is told in another way.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from xxhash import xxh3_64

# Short, as is the mark: both fit into an inode of ext4, so that no other block has to be written for them.
_ATTRIBUTE = "user.dcmrouter"
_NUMBERS = struct.Struct("<QQ")
_READ_BYTES = 1024 * 1024
_UNSUPPORTED = frozenset({errno.ENOTSUP, errno.ENOSYS, errno.EPERM})
#: Where an fsync of a file is known to make its attributes durable. ZFS is not among them: OpenZFS before 2.2 did not
#: write them to its log (xattr=sa), or as a file of its own (xattr=dir).
FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs"})

Checksum = xxh3_64


class MarksUnsupported(Exception):
    """This file system keeps no extended attributes."""


class Mark(NamedTuple):
    """What a file held when it was whole: the id of its entry, its length and its checksum (64 bit)."""

    entry_id: str
    size_bytes: int
    checksum: int


def put(fd: int, mark: Mark) -> None:
    """Mark the open file `fd`; durable with its next fsync. Raises MarksUnsupported, or OSError if the disk is full."""
    if sys.platform != "linux":
        raise MarksUnsupported
    try:
        os.setxattr(fd, _ATTRIBUTE, _NUMBERS.pack(mark.size_bytes, mark.checksum) + mark.entry_id.encode("ascii"))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            raise MarksUnsupported from None
        raise


def read(path: Path) -> Mark | None:
    """Return the mark of the file at `path`, None if it has none.

    Raises ValueError if it has one that we could not have put, OSError.
    """
    if sys.platform != "linux":
        return None
    try:
        mark = os.getxattr(path, _ATTRIBUTE)
    except OSError as error:
        if error.errno == errno.ENODATA or error.errno in _UNSUPPORTED:
            return None
        raise
    try:
        return Mark(mark[_NUMBERS.size:].decode("ascii"), *_NUMBERS.unpack_from(mark))
    except struct.error:
        raise ValueError("a mark is cut off") from None


def is_whole(path: Path, mark: Mark) -> bool:
    """Return whether the file at `path` still holds what was marked. Raises OSError."""
    checksum = Checksum()
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != mark.size_bytes:
            return False
        while part := file.read(_READ_BYTES):
            checksum.update(part)
    return checksum.intdigest() == mark.checksum
