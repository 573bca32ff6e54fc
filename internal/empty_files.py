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

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
#: Files that lie ready, at most.
MAX_EMPTY = 32
#: At least so many are made at once: one fsync of the folder serves them, and is over before a peer has its next image.
#: Until the next time the folder hardly changes. On ext4 without a journal the first fsync of a file writes its folder
#: out too if that has changed, and the sender would wait for it.
_AT_ONCE = 8
_MAX_ROOMY = 8
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
        if not self.durable or not 0 < size_bytes <= _MAX_RESERVED_BYTES or len(self._roomy) >= _MAX_ROOMY:
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
        """Make what is missing where that is more than a few; to be called once for each that was taken.

        Returns whether that took an fsync of the folder. No-op while another thread is about it. Raises OSError; those
        that were not ready yet are gone then.
        """
        if not self._filling.acquire(blocking=False):
            return False
        made: list[EmptyFile] = []
        try:
            missing = MAX_EMPTY - len(self._ready) - len(self._roomy)
            if missing < _AT_ONCE:
                return False
            for _ in range(missing):
                made.append(self._create())
            durable = self.durable
            if durable:
                fsync_directory(self.folder)
        except OSError:
            self._drop(made)
            raise
        else:
            self._ready.extend([file._replace(is_durable=durable) for file in made])
            return durable
        finally:
            self._filling.release()

    def close(self) -> None:
        """Remove those that were not taken."""
        for files in (self._roomy, self._ready):
            self._drop([files.pop() for _ in range(len(files))])

    def _drop(self, files: list[EmptyFile]) -> None:
        for file in files:
            os.close(file.fd)
            with suppress(OSError):  # swept when the slot starts again
                Path(file.path).unlink()
