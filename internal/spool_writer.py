"""How bytes become an entry of the spool that survives a power cut: write, fsync, rename, fsync the directory.

Layer 2, imports errors, failpoints, filelock and new_directory. `Spool.writer` makes the one writer of a slot;
everything that accepts something (DIMSE, HTTP, fetch) goes through it. Changes when the order that keeps the promise
changes.

On return of `commit` or `add_record` the bytes and their name are durable; only then may anyone be told so.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import secrets
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

from internal import failpoints
from internal.errors import RouterError, StorageFailed, StorageFull
from internal.filelock import Lock
from internal.new_directory import NewDirectory

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_MAX_SEQUENCE = 0xFFFF
_MAX_VECTOR = 512
_SYNC_FILE_RANGE_WRITE = 2
_START_WRITING_BYTES = 160 * 1024
#: Prepared files that lie in tmp/ at most; as many as associations that are between two images at one moment.
MAX_PREPARED = 8


class EntryKind(StrEnum):
    """What an entry of the spool is; the value is the file's extension."""

    INSTANCE = "dcm"
    ASSOCIATION = "assoc"
    REQUEST = "req"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the spool; `arrived_at` (ms, from its id) is when its bytes, though not yet its name, were durable.

    Settling goes by this time; `Arrival.arrived_at` in the file meta is when the first byte came.
    """

    id: str
    kind: EntryKind
    arrived_at: int

    @property
    def file_name(self) -> str:
        """The entry's name inside new/ or cur/."""
        return f"{self.id}.{self.kind}"


def parse_name(name: str) -> Entry | None:
    """Return the entry that a file name stands for, None for a name that is not ours."""
    entry_id, _, extension = name.partition(".")
    try:
        return Entry(entry_id, EntryKind(extension), arrived_at_of(entry_id))
    except ValueError:
        return None


def arrived_at_of(entry_id: str) -> int:
    """Return the arrival time (ms) that an id begins with; raises ValueError for a string that is no id."""
    head, dash, _ = entry_id.partition("-")
    if len(head) != 12 or not dash or not entry_id.replace("-", "").isalnum():
        raise ValueError("not the id of a spool entry")
    return int(head, 16)


def storage_error(error: OSError) -> RouterError:
    """Return `error` of a file operation in the router's own terms (StorageFull or StorageFailed)."""
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in _FULL:
        return StorageFull(f"There is not enough free space to keep this ({name})")
    return StorageFailed(f"The disk refused to write ({name})")


class _Ids:
    """Ids of one writer: ``<12 hex ms>-<4 hex>-<slot>-<boot>``; they never go back, even if the clock does."""

    def __init__(self, slot: str) -> None:
        self._tail = f"{slot}-{secrets.token_hex(4)}"
        self._last_ms = 0
        self._sequence = 0
        self._lock = threading.Lock()

    def make(self) -> tuple[str, int]:
        with self._lock:
            now = time.time_ns() // 1_000_000
            if now > self._last_ms:
                self._last_ms, self._sequence = now, 0
            elif self._sequence < _MAX_SEQUENCE:
                self._sequence += 1
            else:
                self._last_ms, self._sequence = self._last_ms + 1, 0
            return f"{self._last_ms:012x}-{self._sequence:04x}-{self._tail}", self._last_ms


def _find_start_writing() -> Callable[[int, int, int], object] | None:
    """Return Linux's sync_file_range(2), which hands bytes to the disk without waiting and promises nothing."""
    if not sys.platform.startswith("linux"):
        return None
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is None:
        return None
    call.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
    return lambda fd, offset, count: call(fd, offset, count, _SYNC_FILE_RANGE_WRITE)


_start_writing = _find_start_writing()


class IncomingInstance:
    """The file of one instance while its bytes come in; ends with commit() or abort(). Used by one thread."""

    def __init__(self, writer: SpoolWriter, path: str, fd: int) -> None:
        self._writer = writer
        self._path = path
        self._fd = fd
        self._ended = False
        self._started_bytes = 0
        self.size_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; raises StorageFull or StorageFailed, after which only abort() makes sense."""
        view = memoryview(data)
        self.size_bytes += len(view)
        try:
            while view:
                view = view[os.write(self._fd, view):]
        except OSError as error:
            raise storage_error(error) from None

    def writev(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        """Append all `parts` in as few system calls as possible; errors as for write()."""
        if not hasattr(os, "writev"):
            for part in parts:
                self.write(part)
            return
        for start in range(0, len(parts), _MAX_VECTOR):
            self._write_vector(parts[start : start + _MAX_VECTOR])

    def _write_vector(self, parts: Sequence[bytes | bytearray | memoryview]) -> None:
        total = sum(map(len, parts))
        try:
            written = os.writev(self._fd, parts)
        except OSError as error:
            raise storage_error(error) from None
        self.size_bytes += written
        if written < total:
            self.write(b"".join(parts)[written:])
        if self.size_bytes - self._started_bytes >= _START_WRITING_BYTES:
            self.start_writing()

    def start_writing(self) -> None:
        """Hand the disk what was written so far, without waiting: commit() then waits for the rest only."""
        if _start_writing is not None and self._writer.is_durable:
            _start_writing(self._fd, self._started_bytes, self.size_bytes - self._started_bytes)
            self._started_bytes = self.size_bytes

    def read_back(self, offset: int, count: int) -> bytes:
        """Return at most `count` of the bytes written so far, from `offset` on; raises StorageFailed."""
        try:
            os.lseek(self._fd, offset, os.SEEK_SET)
            data = os.read(self._fd, count)
            os.lseek(self._fd, 0, os.SEEK_END)
        except OSError as error:
            raise storage_error(error) from None
        return data

    def open_back(self, offset: int) -> BinaryIO:
        """Return a reader of the bytes written so far, at `offset`: to check them, never to copy them.

        The caller closes it. Raises StorageFailed.
        """
        try:
            file = Path(self._path).open("rb")  # noqa: SIM115
            file.seek(offset)
        except OSError as error:
            raise storage_error(error) from None
        return file

    def commit(self) -> Entry:
        """Make bytes and name durable and return the entry; StorageFull or StorageFailed mean that it is not kept."""
        return self._writer._commit(self, EntryKind.INSTANCE)

    def abort(self) -> None:
        """Throw the bytes away; nothing happens after commit() or a first abort()."""
        if self._ended:
            return
        self._ended = True
        self._close()
        try:
            Path(self._path).unlink()
        except OSError:
            pass  # swept when the slot starts again

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class SpoolWriter:
    """The only writer of one slot, shared by the threads of its process. Made by Spool.writer.

    After an fsync has failed it is read-only: every begin() and add_record() raises StorageFailed until reopen().
    """

    def __init__(
        self, *, slot: str, directory: Path, new: Path, lock: Lock, fsync: bool, check_room: Callable[[], None],
    ) -> None:
        self.slot = slot
        self.read_only: str | None = None
        self._directory = str(directory)
        self._lock = lock
        self.is_durable = self._fsync = fsync and not failpoints.active("lie.ack")
        self._check_room = check_room
        self._ids = _Ids(slot)
        self._new = NewDirectory(new, self._fsync)
        self._counter = itertools.count(1)
        self._prepared: deque[tuple[str, int]] = deque()

    def prepare(self) -> None:
        """Open the file of an instance to come, so that begin() need not: finding a free inode may take long.

        Never raises: begin() says why no file can be made.
        """
        if self.read_only is None and len(self._prepared) < MAX_PREPARED:
            with suppress(OSError):
                self._prepared.append(self._create())

    def _create(self) -> tuple[str, int]:
        path = f"{self._directory}{os.sep}{next(self._counter)}"
        return path, os.open(path, _CREATE, 0o600)

    def begin(self) -> IncomingInstance:
        """Open the file of a new instance; raises StorageFull below the floor of free space, else StorageFailed."""
        if self.read_only is not None:
            raise StorageFailed(self.read_only)
        self._check_room()
        try:
            path, fd = self._prepared.pop()
        except IndexError:
            try:
                path, fd = self._create()
            except OSError as error:
                raise storage_error(error) from None
        return IncomingInstance(self, path, fd)

    def add_record(self, kind: EntryKind, payload: bytes) -> Entry:
        """Keep `payload` (JSON) as an entry of `kind`; durable on return. Raises StorageFull or StorageFailed.

        If an fsync fails, one new copy is written from `payload` before giving up.
        """
        try:
            return self._add_copy(kind, payload)
        except StorageFailed:
            if self.read_only is None:
                raise
        self.read_only = None
        return self._add_copy(kind, payload)

    def _add_copy(self, kind: EntryKind, payload: bytes) -> Entry:
        incoming = self.begin()
        try:
            incoming.write(payload)
        except RouterError:
            incoming.abort()
            raise
        return self._commit(incoming, kind)

    def _commit(self, incoming: IncomingInstance, kind: EntryKind) -> Entry:
        try:
            failpoints.hit("store.after_write")
            if self._fsync:
                self._sync_file(incoming._fd)
            failpoints.hit("store.after_fsync")
            incoming._close()
            entry_id, arrived_at = self._ids.make()
            entry = Entry(entry_id, kind, arrived_at)
            self._new.rename_into(incoming._path, entry.file_name)
        except (OSError, RouterError) as error:
            incoming.abort()
            if isinstance(error, OSError):
                raise storage_error(error) from None
            raise
        incoming._ended = True
        failpoints.hit("store.after_rename")
        self._sync_names()
        failpoints.hit("store.after_dirsync")
        return entry

    def _sync_file(self, fd: int) -> None:
        """Never repeated on the same descriptor: a second fsync may report success for pages the kernel has dropped."""
        try:
            os.fsync(fd)
        except OSError as error:
            raise self._failed_sync(error) from None

    def _sync_names(self) -> None:
        try:
            self._new.make_names_durable()
        except OSError as error:
            raise self._failed_sync(error) from None

    def _failed_sync(self, error: OSError) -> RouterError:
        mapped = storage_error(error)
        if isinstance(mapped, StorageFailed):
            self.read_only = f"The disk failed to make data durable: {mapped}"
        return mapped

    def reopen(self) -> bool:
        """Try whether the disk keeps a probe file again; True and no longer read-only if so."""
        path = Path(self._directory, "probe")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, b"probe")
                os.fsync(fd)
            finally:
                os.close(fd)
                path.unlink()
        except OSError:
            return False
        self.read_only = None
        return True

    def close(self) -> None:
        """Give the slot back."""
        while self._prepared:
            path, fd = self._prepared.pop()
            os.close(fd)
            Path(path).unlink(missing_ok=True)
        self._new.close()
        self._lock.release()
