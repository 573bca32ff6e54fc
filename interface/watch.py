"""Watched folders: images, CD trees and zip files that lie there are taken as if they had come by C-STORE.

A thread of the deliver role. A file is taken when its size and time have stood still; what was taken is remembered in
rows, so that nothing is taken twice. A file is removed only where the setting says so, and only if everything in it is
accepted or an index of a medium. Imports archive, intake and watched. Changes when files are found or recognised in
another way.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from interface.archive import MAGIC, ArchiveRefused, members
from internal import watched
from internal.errors import MismatchedInstance, NotDicom, RouterError, StorageFailed, StorageFull
from internal.events import add_event
from internal.intake import accept
from internal.model import Arrival, Probe
from internal.ports import Clock
from internal.spool import Spool, SpoolWriter
from internal.store import Store
from internal.watched import Seen

log = logging.getLogger("router.watch")

MAX_FILES: Final = 1_000_000
MAX_DEPTH: Final = 32
_CHUNK: Final = 500
_MAX_PATH: Final = 1024
_FAULT_PAUSE_S: Final = 10.0
_OPEN: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_NOT_DICOM: Final = "no DICOM file"
_INDEX: Final = "an index of a medium (DICOMDIR)"
_NO_IMAGES: Final = (_NOT_DICOM, _INDEX)


@dataclass(frozen=True, slots=True)
class WatchOptions:
    """A folder to take images from; times in seconds."""

    name: str
    path: Path
    every_s: float = 10.0
    stable_s: float = 5.0
    remove: bool = False
    max_object_bytes: int = 8 * 1024**3


@dataclass(frozen=True, slots=True)
class _File:
    """A regular file as it lay there: `path` is its key in the ledger, `full` where it is."""

    full: str
    path: str
    size: int
    mtime_ns: int
    inode: tuple[int, int]


class Watcher:
    """Looks at one folder; used by one thread."""

    def __init__(self, options: WatchOptions, store: Store, writer: SpoolWriter, clock: Clock) -> None:
        self._options = options
        self._store = store
        self._writer = writer
        self._clock = clock
        self._waiting: dict[str, tuple[int, int, float]] = {}
        self.due_s = 0.0
        self.accepted = 0
        self.refused = 0

    @property
    def name(self) -> str:
        """The name of its section."""
        return self._options.name

    def look(self, stop: threading.Event) -> int:
        """Take what is there and complete; return how many images were accepted.

        Raises StorageFull or StorageFailed when the spool takes nothing now, OSError when the folder cannot be read.
        """
        began_s = self._clock.monotonic_s()
        self.due_s = began_s + self._options.every_s
        before = self.accepted
        waiting: dict[str, tuple[int, int, float]] = {}
        for some in self._chunks():
            with self._store.reading() as tx:
                known = watched.find(tx, self.name, [file.path for file in some])
            for file in some:
                if stop.is_set():
                    return self.accepted - before
                seen = known.get(file.path)
                if seen is not None and (seen.size, seen.mtime_ns) == (file.size, file.mtime_ns):
                    self._remove(file, seen)
                elif self._is_stable(file, began_s, waiting):
                    self._try(file)
        self._waiting = waiting
        return self.accepted - before

    def _is_stable(self, file: _File, now_s: float, waiting: dict[str, tuple[int, int, float]]) -> bool:
        """Return whether size and time stood still since an earlier look, `stable_s` ago or more."""
        size, mtime_ns, since_s = self._waiting.get(file.path, (-1, -1, now_s))
        if (size, mtime_ns) != (file.size, file.mtime_ns):
            since_s = now_s
        if now_s - since_s >= self._options.stable_s and (self._options.stable_s == 0 or since_s < now_s):
            return True
        waiting[file.path] = (file.size, file.mtime_ns, since_s)
        # Look again as soon as it can be complete.
        self.due_s = min(self.due_s, since_s + self._options.stable_s)
        return False

    # -- finding ---------------------------------------------------------------------------------------------------

    def _chunks(self) -> Iterator[list[_File]]:
        some: list[_File] = []
        for file in self._walk(str(self._options.path), 0, [MAX_FILES]):
            some.append(file)
            if len(some) == _CHUNK:
                yield some
                some = []
        if some:
            yield some

    def _walk(self, folder: str, depth: int, left: list[int]) -> Iterator[_File]:
        """Yield the regular files below `folder`, links never followed, by name."""
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            try:
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and depth < MAX_DEPTH:
                    yield from self._walk(entry.path, depth + 1, left)
            except OSError:
                continue  # gone meanwhile, or not for us to read
            if stat.S_ISREG(status.st_mode) and left[0] > 0:
                left[0] -= 1
                yield _File(entry.path, self._key(entry.path), status.st_size, status.st_mtime_ns,
                            (status.st_dev, status.st_ino))

    def _key(self, full: str) -> str:
        """Return the path below the folder, as text whatever bytes it is made of, bounded."""
        key = quote(os.fsencode(os.path.relpath(full, self._options.path)), safe="/ ._-+,()[]@=")
        return key if len(key) <= _MAX_PATH else f"{key[:900]}-{hashlib.sha256(key.encode('ascii')).hexdigest()}"

    # -- taking ----------------------------------------------------------------------------------------------------

    def _try(self, file: _File) -> None:
        """Take a file; one that cannot be read now is tried again later, one on which this code fails is refused."""
        try:
            self._take(file)
        except OSError as fault:  # a disk or a share that is not well says nothing about the file
            log.warning("Watched folder %s: a file cannot be read now (%s)", self.name,
                        fault.strerror or type(fault).__name__)
        except RouterError:
            raise
        except Exception:  # the top for one file: whatever it holds, the others are taken
            log.exception("Watched folder %s: a file cannot be taken", self.name)
            self._remember(Seen(file.path, file.size, file.mtime_ns, self._clock.now_ms(), 0, 1,
                                "a fault of this program; the log says more"))

    def _take(self, file: _File) -> None:
        """Accept what is in a file, remember it, and remove it where that is wanted; OSError if it cannot be read."""
        try:
            descriptor = os.open(file.full, _OPEN)
        except OSError:
            return  # gone, a link by now, or not ours to read: the next look sees
        with os.fdopen(descriptor, "rb") as source:
            if not _is_same(os.fstat(descriptor), file):
                return
            seen = self._accept(source, file)
        self._remember(seen)
        self._remove(file, seen)

    def _remember(self, seen: Seen) -> None:
        self.accepted += seen.accepted
        self.refused += seen.refused
        with self._store.transaction() as tx:
            watched.remember(tx, self.name, seen)
            if seen.refused:
                add_event(tx, seen.at, "watch-refused", f"a file of the watched folder {self.name}: {seen.reason}",
                          fields={"watch": self.name, "accepted": seen.accepted, "refused": seen.refused})
        if seen.refused:
            log.warning("Watched folder %s: a file was refused: %s", self.name, seen.reason)

    def _accept(self, source: BinaryIO, file: _File) -> Seen:
        reasons: list[str] = []
        accepted = refused = 0
        magic = source.read(4)
        source.seek(0)
        try:
            parts: Iterator[BinaryIO] = members(source, file.size) if magic == MAGIC else iter((source,))
            for part in parts:
                reason = self._accept_one(part)
                accepted += not reason
                refused += reason not in ("", *_NO_IMAGES)
                reasons += [reason] if reason else []
        except ArchiveRefused as fault:
            refused += 1
            reasons.append(str(fault))
        return Seen(file.path, file.size, file.mtime_ns, self._clock.now_ms(), accepted, refused,
                    "; ".join(sorted(set(reasons), key=lambda one: (one in _NO_IMAGES, one)))[:300])

    def _accept_one(self, source: BinaryIO) -> str:
        """Accept one image; return "" or why it was not. Raises StorageFull, StorageFailed, OSError, ArchiveRefused."""
        arrival = Arrival(self._clock.now_ms(), source=f"watch:{self.name}")
        try:
            entry = accept(self._writer, source, arrival, self._options.max_object_bytes)
        except NotDicom as fault:
            return _NOT_DICOM if "no DICM prefix" in str(fault) else str(fault)
        except MismatchedInstance as fault:
            return str(fault)
        return "" if entry is not None else _INDEX

    def _remove(self, file: _File, seen: Seen) -> None:
        """Remove a file of which everything is accepted, if that is wanted and it is still the same file."""
        if not self._options.remove or not seen.accepted or seen.refused or seen.reason not in ("", _INDEX):
            return
        try:
            if not _is_same(os.lstat(file.full), file):
                return
            Path(file.full).unlink()
        except OSError as fault:
            log.warning("Watched folder %s: a file that was taken cannot be removed (%s)", self.name, fault.strerror)
            return
        with self._store.transaction() as tx:
            watched.forget(tx, self.name, file.path)


def _is_same(status: os.stat_result, file: _File) -> bool:
    return (stat.S_ISREG(status.st_mode) and (status.st_size, status.st_mtime_ns) == (file.size, file.mtime_ns)
            and (status.st_dev, status.st_ino) == file.inode)


def probe(options: WatchOptions) -> Probe:
    """Look whether a folder can be watched, and emptied where that is asked for; changes nothing."""
    wanted = os.R_OK | os.X_OK | (os.W_OK if options.remove else 0)
    if options.path.is_dir() and os.access(options.path, wanted):
        return Probe(f"watch {options.name}", True, f"{options.path} can be read")
    return Probe(f"watch {options.name}", False, f"{options.path} is no folder that this user may use",
                 "Buat folder atau beri izin; apakah share ter-mount? / create it or allow access; is it mounted?")


class Watching:
    """The thread that looks at all watched folders of a node, one after the other."""

    def __init__(self, folders: Sequence[WatchOptions], store: Store, spool: Spool, clock: Clock) -> None:
        self._folders = folders
        self._store = store
        self._spool = spool
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watchers: list[Watcher] = []

    def start(self) -> None:
        """Start the thread, if there is anything to watch."""
        if self._folders:
            self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
            self._thread.start()

    def stop(self, wait_s: float) -> bool:
        """Stop at the next file; return whether the thread had ended within `wait_s` seconds."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(wait_s)
        return self._thread is None or not self._thread.is_alive()

    def stop_soon(self) -> None:
        """Ask the thread to stop at the next file."""
        self._stop.set()

    def report(self) -> dict[str, dict[str, int]]:
        """Return what the status file says about each folder."""
        return {one.name: {"accepted": one.accepted, "refused": one.refused} for one in self._watchers}

    def _run(self) -> None:
        writer = self._spool.writer("watch")
        try:
            self._watchers = [Watcher(one, self._store, writer, self._clock) for one in self._folders]
            while not self._stop.is_set():
                due = min(self._watchers, key=lambda one: one.due_s)
                wait_s = due.due_s - self._clock.monotonic_s()
                if wait_s > 0:
                    self._stop.wait(min(wait_s, 1.0))
                    continue
                self._look(due, writer)
        finally:
            writer.close()

    def _look(self, watcher: Watcher, writer: SpoolWriter) -> None:
        """One look; a fault is told, and this folder looked at again later."""
        try:
            if writer.read_only is not None:
                writer.reopen()
            if count := watcher.look(self._stop):
                log.info("Watched folder %s: %d images taken", watcher.name, count)
        except (StorageFull, StorageFailed, OSError, RouterError) as fault:
            words = str(fault) if isinstance(fault, RouterError) else fault.strerror or type(fault).__name__
            log.warning("Watched folder %s cannot be used now: %s", watcher.name, words)
            watcher.due_s = max(watcher.due_s, time.monotonic() + _FAULT_PAUSE_S)
        except Exception:  # the thread's top: the other folders are looked at all the same
            log.exception("Watched folder %s cannot be looked at", watcher.name)
            watcher.due_s = max(watcher.due_s, time.monotonic() + _FAULT_PAUSE_S)
