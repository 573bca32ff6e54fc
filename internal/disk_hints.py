"""What Linux can be told about a file to come, so that less is left to do once somebody waits; promises nothing.

Layer 1, imports nothing of ours. Used by the spool's writer. Changes when another system, or Python, offers the calls.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable

_SYNC_FILE_RANGE_WRITE = 2
_FALLOC_FL_KEEP_SIZE = 1


def _find(name: str, *argtypes: type) -> Callable[..., int] | None:
    call = getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None
    if call is not None:
        call.argtypes = argtypes
    return call


_sync_file_range = _find("sync_file_range", ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_fallocate = _find("fallocate", ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


def start_writing(fd: int, offset: int, count: int) -> None:
    """Hand `count` bytes from `offset` on to the disk without waiting (sync_file_range(2))."""
    if _sync_file_range is not None:
        _sync_file_range(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


def reserve(fd: int, count: int) -> int:
    """Give the empty file `fd` room on the disk for `count` bytes and return how many it got: `count` or 0.

    The file's size stays 0 (fallocate(2)); drop_reserved() gives back what is not used. Not posix_fallocate(3), which
    writes zeros where the file system cannot do it.
    """
    if _fallocate is None or _fallocate(fd, _FALLOC_FL_KEEP_SIZE, 0, count):
        return 0
    return count


def drop_reserved(fd: int, size_bytes: int) -> None:
    """Give back room beyond the end of a file of `size_bytes`; never raises."""
    try:
        os.ftruncate(fd, size_bytes)
    except OSError:
        pass  # room that is never used; the bytes are there
