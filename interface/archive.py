"""Zip files from outside, read member by member within bounds: entries, bytes, ratio, and never a zip inside a zip.

Used by the watched folder. Imports the standard library only. Changes when archives of another form are to be read.
Source: PKWARE APPNOTE 4.3 (end of central directory, zip64).
"""

from __future__ import annotations

import errno
import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

MAX_MEMBERS: Final = 100_000
MAX_DIRECTORY_BYTES: Final = 64 * 1024 * 1024
#: Beyond so many bytes, and beyond so many times the size of the archive, it is taken for a bomb.
MAX_FREE_BYTES: Final = 1024**3
MAX_RATIO: Final = 200
MAGIC: Final = b"PK\x03\x04"
_TAIL_BYTES: Final = 66 * 1024
#: The only methods that are read: every device and system writes these.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FAULTS: Final = (zipfile.BadZipFile, RuntimeError, NotImplementedError, zlib.error, EOFError, ValueError,
                  OverflowError, struct.error)


class ArchiveRefused(Exception):
    """This archive, or the rest of it, is not read; the message says why, without names from inside it."""


class Member(io.RawIOBase):
    """One member, read from the front; raises ArchiveRefused when archive or member is damaged or goes too far."""

    def __init__(self, source: BinaryIO, budget: list[int]) -> None:
        self._source = source
        self._budget = budget

    def readable(self) -> bool:
        """Return True."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` next bytes, b"" at the end."""
        try:
            data = self._source.read(size)
        except _FAULTS:
            raise ArchiveRefused("the zip file is damaged") from None
        self._budget[0] -= len(data)
        if self._budget[0] < 0:
            raise ArchiveRefused("the zip file unpacks to far more than its size")
        return data


def members(file: BinaryIO, size_bytes: int) -> Iterator[BinaryIO]:
    """Yield each regular member of the zip file `file` of `size_bytes` bytes; raises ArchiveRefused.

    OSError when `file` itself cannot be read.

    Names inside are never used. A member is to be read before the next one is asked for.
    """
    _check_directory(file, size_bytes)
    budget = [max(MAX_FREE_BYTES, size_bytes * MAX_RATIO)]
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            if len(infos) > MAX_MEMBERS:
                raise ArchiveRefused(f"the zip file has more than {MAX_MEMBERS} entries")
            for info in infos:
                mode = info.external_attr >> 16
                if info.is_dir() or (mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG)):
                    continue
                if info.flag_bits & 1:
                    raise ArchiveRefused("the zip file is encrypted")
                if info.compress_type not in _METHODS:
                    raise ArchiveRefused("the zip file is compressed in a way that is not read")
                with archive.open(info) as source:
                    yield cast(BinaryIO, Member(cast(BinaryIO, source), budget))
    except _FAULTS:
        raise ArchiveRefused("the zip file is damaged or of a form that is not read") from None
    except OSError as fault:
        if fault.errno != errno.EINVAL:  # a place before the file's beginning: the archive lies
            raise
        raise ArchiveRefused("the zip file is damaged") from None


def _check_directory(file: BinaryIO, size_bytes: int) -> None:
    """Look at the end record first: the directory is read into memory as a whole."""
    file.seek(max(0, size_bytes - _TAIL_BYTES))
    tail = file.read(_TAIL_BYTES)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + 22 > len(tail):
        raise ArchiveRefused("the zip file has no end: it is cut off or damaged")
    entries, directory = struct.unpack_from("<HI", tail, at + 10)
    wide = tail.rfind(b"PK\x06\x06", 0, at)
    if wide >= 0 and wide + 56 <= len(tail):
        entries, directory = struct.unpack_from("<QQ", tail, wide + 32)
    if entries > MAX_MEMBERS or directory > MAX_DIRECTORY_BYTES or directory > size_bytes:
        raise ArchiveRefused(f"the zip file has more than {MAX_MEMBERS} entries")
    file.seek(0)
