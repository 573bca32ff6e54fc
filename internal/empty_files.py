"""Empty files of one folder, made ahead: nobody waits for an inode, for room on the disk or for a durable name.

Layer 1, imports disk_hints and new_directory. Used by the spool's writer. Changes when files are made ready in another
way.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from internal import disk_hints
from internal.new_directory import fsync_directory

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: Files that lie ready or are made for it, at most; at so few that lie ready one fsync of the folder serves all those
#: that were made meanwhile; and so many are made at once, which takes less time than a peer needs for its next image.
MAX_EMPTY = 32
_FEW = 8
_AT_ONCE = 2
#: Room is reserved for so much at most: what lies ready must not fill the disk, and gains nothing for larger ones.
_MAX_RESERVED_BYTES = 4 * 1024 * 1024


class EmptyFile(NamedTuple):
    """One that was taken; the taker closes `fd` and gives the file a name elsewhere or unlinks it."""

    path: str
    fd: int
    #: Whether a power cut leaves the file, under this path.
    is_durable: bool
    #: Room on the disk that it has beyond its end.
    reserved_bytes: int = 0


class EmptyFiles:
    """The empty files of `folder`, which nobody else puts anything into. Safe for threads.

    With `durable` their names are made so before they are taken; without, nothing is promised.
    """

    def __init__(self, folder: Path, durable: bool) -> None:
        self.folder = folder
        self.durable = durable
        self._path = f"{folder}{os.sep}"
        self._numbers = itertools.count(1)
        self._ready: deque[EmptyFile] = deque()
        self._roomy: deque[EmptyFile] = deque()
        self._made: list[EmptyFile] = []  # to be durable before they lie ready
        self._sync_each = disk_hints.has_no_journal(folder)
        self._filling = threading.Lock()

    def take(self) -> EmptyFile:
        """Return one that lies ready, else a new one, whose name is not durable; raises OSError."""
        for files in (self._roomy, self._ready):
            try:
                return files.popleft()
            except IndexError:
                continue
        return self._create()

    def reserve(self, size_bytes: int) -> None:
        """Give one more of those that lie ready room for `size_bytes`."""
        if not self.durable or not 0 < size_bytes <= _MAX_RESERVED_BYTES or len(self._roomy) >= _FEW:
            return
        try:
            file = self._ready.popleft()
        except IndexError:
            return
        self._roomy.append(file._replace(reserved_bytes=disk_hints.reserve(file.fd, size_bytes)))

    def _create(self) -> EmptyFile:
        while True:
            path = f"{self._path}{next(self._numbers)}"
            try:
                return EmptyFile(path, os.open(path, _CREATE, 0o600), is_durable=False)
            except FileExistsError:  # what could not be taken in at the start
                continue

    def top_up(self) -> bool:
        """Make a few more, or all where few lie ready; called once for each that was taken, some always lie ready.

        Returns whether that took an fsync of the folder. No-op while another thread is about it. Raises OSError; those
        that were not ready yet are gone then.
        """
        if not self._filling.acquire(blocking=False):
            return False
        try:
            ready = len(self._ready) + len(self._roomy)
            short = MAX_EMPTY - ready - len(self._made)
            few = len(self._ready) <= _FEW  # all are made then: they share the fsync
            for _ in range(short if few else min(short, _AT_ONCE)):
                self._made.append(self._create())
                if self._sync_each and ready and self.durable:
                    os.fsync(self._made[-1].fd)  # now, or the folder's share of it is waited for with the image in it
            if len(self._ready) > _FEW or not self._made:
                return False
            durable = self.durable
            if durable:
                fsync_directory(self.folder)
            self._ready.extend([file._replace(is_durable=durable) for file in self._made])
            self._made.clear()
            return durable
        except OSError:
            self._drop(self._made)
            self._made.clear()
            raise
        finally:
            self._filling.release()

    def close(self) -> None:
        """Remove those that were not taken."""
        for files in (self._roomy, self._ready, self._made):
            self._drop([files.pop() for _ in range(len(files))])

    def _drop(self, files: list[EmptyFile]) -> None:
        for file in files:
            os.close(file.fd)
            with suppress(OSError):  # swept when the slot starts again
                Path(file.path).unlink()
