"""How bytes become an entry of the spool that survives a power cut, by one of two orders (ADR 0024).

commit(): write, fsync, rename into new/, fsync new/. seal() and hand_over(): write into a file whose name in tmp/ was
made durable before, mark it as whole, fsync; then tell the sender; then link it into new/, whose fsync serves many.
On return of `commit`, `seal` or `add_record` a power cut takes nothing away; only then may anyone be told so.

Layer 2, imports disk_hints, empty_files, errors, failpoints, filelock, new_directory, spool_entry and whole_mark.
`Spool.writer` makes the one writer of a slot; everything that accepts something (DIMSE, HTTP, fetch) goes through it.
Changes when the order that keeps the promise changes.
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, TypeVar

from internal import disk_hints, failpoints, whole_mark
from internal.empty_files import EmptyFile, EmptyFiles
from internal.errors import RouterError, StorageFailed, StorageFull
from internal.filelock import Lock
from internal.new_directory import NewDirectory
from internal.spool_entry import Entry, EntryIds, EntryKind
from internal.whole_mark import Checksum, Mark, MarksUnsupported

log = logging.getLogger("router.spool")

T = TypeVar("T")

_FULL = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_HAS_WRITEV = hasattr(os, "writev")
_MAX_VECTOR = 512
_START_WRITING_BYTES = 160 * 1024
#: One fsync of new/ for so many names, after which those in tmp/ go.
_TIDY_NAMES = 24


def storage_error(error: OSError | RouterError) -> RouterError:
    """Return `error` of a file operation in the router's own terms: StorageFull, StorageFailed, or as it is."""
    if isinstance(error, RouterError):
        return error
    name = errno.errorcode.get(error.errno or 0, "unknown error")
    if error.errno in _FULL:
        return StorageFull(f"There is not enough free space to keep this ({name})")
    return StorageFailed(f"The disk refused to write ({name})")


def _drained(items: deque[T]) -> Iterator[T]:
    """Yield what is in `items` now, taking it out; other threads may do the same."""
    for _ in range(len(items)):
        try:
            yield items.popleft()
        except IndexError:
            return


class IncomingInstance:
    """The file of one instance while its bytes come in; ends with commit(), abort(), or seal() and hand_over().

    Used by one thread.
    """

    def __init__(self, writer: SpoolWriter, file: EmptyFile) -> None:
        self._writer = writer
        self._path = file.path
        self._fd = file.fd
        self._reserved_bytes = file.reserved_bytes
        self._checksum = Checksum() if file.is_durable else None  # of what was written, where it can be sealed
        self._sealed: Entry | None = None
        self._ended = False
        self._started_bytes = 0
        self.size_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append `data`; raises StorageFull or StorageFailed, after which only abort() makes sense."""
        if self._checksum is not None:
            self._checksum.update(data)
        self._write(memoryview(data))

    def _write(self, view: memoryview) -> None:
        self.size_bytes += len(view)
        try:
            while view:
                view = view[os.write(self._fd, view):]
        except OSError as error:
            raise storage_error(error) from None

    def writev(self, parts: Sequence[bytes | bytearray | memoryview], *, last: bool = False) -> None:
        """Append all `parts` in as few system calls as possible; errors as for write().

        Where enough has come together, or nothing follows, the disk is told to begin writing, which is not waited for.
        """
        if not _HAS_WRITEV:
            for part in parts:
                self.write(part)
            return
        if len(parts) > _MAX_VECTOR:
            for start in range(0, len(parts), _MAX_VECTOR):
                self.writev(parts[start : start + _MAX_VECTOR], last=last and start + _MAX_VECTOR >= len(parts))
            return
        try:
            written = os.writev(self._fd, parts) if parts else 0
        except OSError as error:
            raise storage_error(error) from None
        self.size_bytes += written
        if written < sum(map(len, parts)):
            self._write(memoryview(b"".join(parts))[written:])
        if last:
            self._start_writing(self.size_bytes)
        elif self.size_bytes - self._started_bytes >= _START_WRITING_BYTES:
            self._start_writing(self.size_bytes & -mmap.PAGESIZE)  # the page that is begun would be written twice
        if self._checksum is not None:  # while the disk writes
            for part in parts:
                self._checksum.update(part)

    def _start_writing(self, end: int) -> None:
        if self._writer.is_durable:
            disk_hints.start_writing(self._fd, self._started_bytes, end - self._started_bytes)
            self._started_bytes = end

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

    def seal(self) -> Entry:
        """Make the bytes durable and return the entry, which hand_over() must bring into new/. Errors as for commit().

        On return a power cut takes nothing away: the file lies in tmp/ under a name that was made durable before, with
        a mark that says it is whole and what it is to be called; the slot's next writer takes it in. Where no such
        name is ready, or the file system keeps no marks, this is commit().
        """
        return self._writer._seal(self)

    def hand_over(self) -> None:
        """Bring a sealed instance into new/, where others see it; nothing happens after commit().

        Never raises: what the disk does not let through is tried again by SpoolWriter.tidy, or by the next writer.
        """
        if self._sealed is not None:
            entry, self._sealed = self._sealed, None
            self._writer._hand_over(self._path, entry, self.size_bytes)
            self._close()

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
            if self._reserved_bytes > self.size_bytes:
                disk_hints.drop_reserved(self._fd, self.size_bytes)
            os.close(self._fd)
            self._fd = -1


class SpoolWriter:
    """The only writer of one slot, shared by the threads of its process. Made by Spool.writer.

    After an fsync has failed it is read-only: every begin() and add_record() raises StorageFailed until reopen().
    """

    def __init__(
        self, *, slot: str, directory: Path, new: Path, lock: Lock, fsync: bool, marks: bool,
        check_room: Callable[[], None], held_back: Iterable[tuple[str, Entry]] = (),
    ) -> None:
        self.slot = slot
        self.read_only: str | None = None
        self._lock = lock
        self.is_durable = self._fsync = fsync and not failpoints.active("lie.ack")
        self._check_room = check_room
        self._ids = EntryIds(slot)
        self._new = NewDirectory(new, self._fsync)
        self._empty = EmptyFiles(directory, durable=self._fsync and marks)
        self._last_bytes = self._expected_bytes = 0  # of instances, to make room for those to come
        self._held_back = deque(held_back)
        self._linked: deque[str] = deque()  # in new/ as well; their names in tmp/ go once those in new/ are durable

    def prepare(self) -> None:
        """Make files of instances to come ready, so that begin() need not and seal() can; to be called between two.

        A little each time, with one wait for a folder at most: it is to be over before the peer has its next instance.
        Never raises: begin() says why no file can be made.
        """
        if self.read_only is None:
            with suppress(OSError, RouterError):
                if not self._empty.top_up() and len(self._linked) >= _TIDY_NAMES:
                    self.tidy()
        self._empty.reserve(self._expected_bytes)

    def begin(self) -> IncomingInstance:
        """Open the file of a new instance; raises StorageFull below the floor of free space, else StorageFailed."""
        if self.read_only is not None:
            raise StorageFailed(self.read_only)
        self._check_room()
        try:
            file = self._empty.take()
        except OSError as error:
            raise storage_error(error) from None
        return IncomingInstance(self, file)

    def add_record(self, kind: EntryKind, payload: bytes) -> Entry:
        """Keep `payload` (JSON) as an entry of `kind`; durable on return. Raises StorageFull or StorageFailed.

        If an fsync fails, one new copy is written from `payload` before giving up.
        """
        try:
            return self._add_copy(kind, payload)
        except StorageFailed:
            if self.read_only is None or self._held_back:
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
            entry = self._ids.make(kind)
            self._new.rename_into(incoming._path, entry.file_name)
        except (OSError, RouterError) as error:
            incoming.abort()
            raise storage_error(error) from None
        incoming._ended = True
        failpoints.hit("store.after_rename")
        self._sync_names()
        failpoints.hit("store.after_dirsync")
        return entry

    def _seal(self, incoming: IncomingInstance) -> Entry:
        checksum = incoming._checksum
        if checksum is None:
            return incoming.commit()
        entry = self._ids.make(EntryKind.INSTANCE)
        try:
            failpoints.hit("store.mark")
            whole_mark.put(incoming._fd, Mark(entry.id, incoming.size_bytes, checksum.intdigest()))
        except MarksUnsupported:
            self._empty.durable = False
            return incoming.commit()
        except OSError:
            return incoming.commit()
        try:
            failpoints.hit("store.after_write")
            self._sync_file(incoming._fd)
            failpoints.hit("store.after_fsync")
            if not os.fstat(incoming._fd).st_nlink:
                raise StorageFailed("The file of this image was removed from tmp/ meanwhile")
        except (OSError, RouterError) as error:
            incoming.abort()
            raise storage_error(error) from None
        incoming._ended = True
        incoming._sealed = entry
        return entry

    def _hand_over(self, path: str, entry: Entry, size_bytes: int) -> None:
        self._expected_bytes = min(size_bytes, self._last_bytes)
        self._last_bytes = size_bytes
        try:
            failpoints.hit("store.before_link")
            self._new.link_into(path, entry.file_name)
        except OSError as error:
            self._held_back.append((path, entry))
            self.read_only = f"What was received cannot be handed on: {storage_error(error)}"
            return
        self._linked.append(path)
        failpoints.hit("store.after_link")

    def tidy(self) -> None:
        """Bring into new/ what was held back, and drop names in tmp/ that new/ has made needless. Never raises."""
        with suppress(OSError, RouterError):
            self._hand_over_again()
            if self._linked and self.read_only is None:
                self._sync_names()

    def _hand_over_again(self) -> None:
        for path, entry in _drained(self._held_back):
            try:
                self._new.link_into(path, entry.file_name)
            except FileExistsError:
                pass
            except FileNotFoundError:
                log.error("%s was removed before it was handed on: an image that was answered is gone", path)
                continue
            except OSError:
                self._held_back.append((path, entry))
                raise
            self._linked.append(path)

    def _sync_file(self, fd: int) -> None:
        """Never repeated on the same descriptor: a second fsync may report success for pages the kernel has dropped."""
        try:
            os.fsync(fd)
        except OSError as error:
            raise self._failed_sync(error) from None

    def _sync_names(self) -> None:
        linked = list(_drained(self._linked))
        try:
            self._new.make_names_durable()
        except OSError as error:
            # The names in tmp/ of what was linked stay until the slot starts again: a later fsync proves nothing.
            raise self._failed_sync(error) from None
        for path in linked:
            try:
                os.unlink(path)  # noqa: PTH108 - once per image
            except FileNotFoundError:
                continue
            except OSError:
                self._linked.append(path)

    def _failed_sync(self, error: OSError) -> RouterError:
        mapped = storage_error(error)
        if isinstance(mapped, StorageFailed):
            self.read_only = f"The disk failed to make data durable: {mapped}"
        return mapped

    def reopen(self) -> bool:
        """Try whether the disk keeps a probe file and what was held back; True and no longer read-only if so."""
        path = self._empty.folder / "probe"
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            try:
                os.write(fd, b"probe")
                os.fsync(fd)
            finally:
                os.close(fd)
                path.unlink()
            self._hand_over_again()
        except OSError:
            return False
        self.read_only = None
        return True

    def close(self) -> None:
        """Give the slot back."""
        self.tidy()
        self._empty.close()
        self._new.close()
        self._lock.release()
